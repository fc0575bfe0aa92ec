"""Labels that become known later, inside Triton's Python backend: a running accuracy of the version that this replica serves.

Inputs [batch, 1]: `version` INT64 (which version answered), `answered` BYTES (the label that it gave), `right` BYTES.
Outputs [batch, 1]: `labels` INT64 (how many this replica has been told so far), `accuracy` FP32, and `low` and `high` FP32, its
95 % interval (Wilson). Feedback about another version, or with a label that the version does not have, is answered with an error
and counts nowhere.
Runs in Triton's own Python process: numpy only, and nothing of trimtab.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

sys.path.insert(0, str(Path(__file__).parent))
from judged import Judged, checked  # type: ignore[import-not-found]


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the labels of the version."""
        end_with_parent()
        folder = Path(args["model_repository"]) / args["model_version"]
        self.known = frozenset(json.loads((folder / "intents.json").read_text(encoding="utf-8")))
        self.version = int(args["model_version"])
        self.judged = Judged()
        about = json.loads(args["model_config"])["parameters"]["about"]["string_value"]
        self.family = pb_utils.MetricFamily(
            name="trimtab_model_feedback_total",
            description="Answers whose right label became known, by whether they were right.",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        labels = {"model": about, "version": args["model_version"]}
        self.right, self.wrong = (self.family.Metric(labels=labels | {"outcome": outcome}) for outcome in ("right", "wrong"))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Count each request, or refuse it whole."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """One request, with one or more labels."""
        version, answered, right = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1) for name in ("version", "answered", "right")
        )
        try:
            hits = checked(version.tolist(), answered.tolist(), right.tolist(), self.version, self.known)
        except ValueError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))
        self.judged.add(sum(hits), len(hits))
        for metric, count in ((self.right, sum(hits)), (self.wrong, len(hits) - sum(hits))):
            if count:
                metric.increment(count)
        shape = (len(hits), 1)
        low, high = self.judged.interval()
        outputs = [pb_utils.Tensor("labels", np.full(shape, self.judged.labels, dtype=np.int64))]
        for name, value in (("accuracy", self.judged.accuracy), ("low", low), ("high", high)):
            outputs.append(pb_utils.Tensor(name, np.full(shape, value, dtype=np.float32)))
        return pb_utils.InferenceResponse(output_tensors=outputs)


def end_with_parent() -> None:
    """End this process when Triton is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()

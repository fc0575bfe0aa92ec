"""The intent model inside Triton's Python backend: text -> intent and confidence.

Input `text` BYTES [batch, 1]; outputs `label` BYTES [batch, 1] and `confidence` FP32 [batch, 1]. An empty text or one that is
not UTF-8 is answered with an error; the other requests of its batch are not.
Runs in Triton's own Python process: numpy, onnxruntime and tokenizers only, and nothing of trimtab.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))
from faults import CONFIDENT, Faults  # type: ignore[import-not-found]
from texts import padded, readable  # type: ignore[import-not-found]

PAGE = os.sysconf("SC_PAGE_SIZE")


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Check the version's files, load them, and run once so that the first request is as fast as the others."""
        end_with_parent()
        folder = Path(args["model_repository"]) / args["model_version"]
        check_whole(folder)
        parameters = json.loads(args["model_config"]).get("parameters", {})
        self.longest_text = int(parameters["longest_text"]["string_value"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["threads"]["string_value"])
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        intents = json.loads((folder / "intents.json").read_text(encoding="utf-8"))
        self.intents = np.array([name.encode() for name in intents], dtype=np.object_)
        self.faults = Faults(folder, os.environ.get("TRIMTAB_REPLICA_FAULT_FILE"))
        labels = {"model": args["model_name"], "version": args["model_version"]}
        self.memory = metric("trimtab_model_resident_memory_bytes", "Resident memory of the model's process.", "GAUGE", labels)
        self.confidence_sum = metric("trimtab_model_confidence_sum", "Sum of the confidence of all answers.", "COUNTER", labels)
        self.confidence_count = metric("trimtab_model_confidence_count", "Answers that have a confidence.", "COUNTER", labels)
        self.probabilities(["warm up"] * 16)
        self.memory.set(resident_bytes())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests, each with one or more texts."""
        self.faults.before_batch(len(requests))
        if self.faults.fails():  # raised, because Triton counts as failed only what the model raises
            raise pb_utils.TritonModelException("failing as the fault file asks")
        texts: list[str] = []
        plan: list[slice | str] = []  # per request: its rows in `texts`, or why it fails
        for request in requests:
            try:
                own = readable(pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1), self.longest_text)
            except ValueError as error:
                plan.append(str(error))
                continue
            plan.append(slice(len(texts), len(texts) + len(own)))
            texts += own
        answers = self.answer(texts) if texts else None
        responses = []
        for step in plan:
            if isinstance(step, str):
                responses.append(failure(step, pb_utils.TritonError.INVALID_ARG))
            else:
                assert answers is not None
                labels, confidence = answers[0][step], answers[1][step]
                self.confidence_sum.increment(float(confidence.sum()))
                self.confidence_count.increment(len(confidence))
                tensors = [pb_utils.Tensor("label", labels[:, None]), pb_utils.Tensor("confidence", confidence[:, None])]
                responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        self.memory.set(resident_bytes())
        return responses

    def answer(self, texts: list[str]) -> tuple[Any, Any]:
        """Labels (bytes objects) and confidence (float32), both [texts]; wrong ones where a fault asks for it."""
        probabilities = self.probabilities(texts)
        best = probabilities.argmax(1)
        confidence = probabilities.max(1).astype(np.float32)
        for row in range(len(texts)):
            other = self.faults.wrong(int(best[row]), len(self.intents))
            if other is not None:
                best[row], confidence[row] = other, CONFIDENT
        return self.intents[best], confidence

    def probabilities(self, texts: list[str]) -> Any:
        """Float32 [texts, classes]; padded to the longest of the batch."""
        ids, mask = padded([encoding.ids for encoding in self.tokenizer.encode_batch(texts)])
        return self.session.run(None, {"ids": ids, "mask": mask})[0]


def check_whole(folder: Path) -> None:
    """Refuse a version whose files are not those that were published."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for name, digest in manifest["files"].items():
            with (folder / name).open("rb") as content:
                if hashlib.file_digest(content, "sha256").hexdigest() != digest:
                    raise pb_utils.TritonModelException(
                        f"version folder {folder} is broken: {name} is not the file that was published"
                    )
    except FileNotFoundError as error:
        raise pb_utils.TritonModelException(
            f"version folder {folder} is broken: {Path(error.filename).name} is missing"
        ) from None


def end_with_parent() -> None:
    """End this process when Triton is gone: killed, it sometimes leaves its Python process waiting for ever."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def metric(name: str, description: str, kind: str, labels: dict[str, str]) -> Any:
    """One Prometheus series on Triton's own metrics page."""
    family = pb_utils.MetricFamily(name=name, description=description, kind=getattr(pb_utils.MetricFamily, kind))
    FAMILIES.append(family)  # a family that is collected takes its series off the page
    return family.Metric(labels=labels)


FAMILIES: list[Any] = []


def failure(words: str, code: Any) -> Any:
    """A response that says what is wrong; the code decides the HTTP status."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(words, code))


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

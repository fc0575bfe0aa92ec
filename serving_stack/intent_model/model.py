"""The intent model inside Triton's Python backend: text -> intent and confidence.

Input `text` BYTES [batch, 1]; outputs `label` BYTES [batch, 1] and `confidence` FP32 [batch, 1]. A text that cannot be answered
(empty, without a word, too long, not UTF-8) is answered with an error; the other requests of its batch are not.
Runs in Triton's own Python process: numpy, onnxruntime and tokenizers only, and nothing of trimtab.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
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
from batches import grouped  # type: ignore[import-not-found]
from faults import CONFIDENT, Faults  # type: ignore[import-not-found]
from network import Network, device  # type: ignore[import-not-found]
from page import MetricsPage  # type: ignore[import-not-found]
from quality import Quality  # type: ignore[import-not-found]
from texts import NO_WORDS, SHORTEST, Refused, padded, readable  # type: ignore[import-not-found]

WARM_UP_TEXTS = (1, 4, 16)
FAILS_BEFORE_END = 3
"""So often in a row the network may fail on known input before the replica ends itself."""


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Check the version's files, load them, and run until a first request is as fast as the others."""
        end_with_parent()
        folder = Path(args["model_repository"]) / args["model_version"]
        check_whole(folder)
        parameters = {key: value["string_value"] for key, value in json.loads(args["model_config"]).get("parameters", {}).items()}
        self.longest_text = int(parameters["longest_text"])
        available = onnxruntime.get_available_providers()
        try:
            self.device = device(parameters.get("device", "cuda"), args.get("model_instance_kind", "CPU"), available)
        except RuntimeError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        number = int(args.get("model_instance_device_id", 0))
        self.network = Network(folder, int(parameters["threads"]), self.device, number)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.special_tokens = self.tokenizer.num_special_tokens_to_add(False)
        intents = json.loads((folder / "intents.json").read_text(encoding="utf-8"))
        self.intents = np.array([name.encode() for name in intents], dtype=np.object_)
        self.faults = Faults(folder, os.environ.get("TRIMTAB_REPLICA_FAULT_FILE"))
        self.probe = padded([self.tokenizer.encode("warm up").ids])
        self.failed_in_a_row = 0
        self.warm_up()
        self.quality = Quality(intents)
        self.page = MetricsPage({"model": args["model_name"], "version": args["model_version"]}, self.quality)
        self.page.start()

    def warm_up(self) -> None:
        """Small and usual batches, and the largest that can come: memory does not grow afterwards."""
        longest = (self.tokenizer.truncation or {"max_length": 128})["max_length"]
        for texts in WARM_UP_TEXTS:
            self.network.run(*padded([[0] * 16] * texts))
        self.network.run(*padded([[0] * longest] * max(1, self.device.most // longest)))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests, each with one or more texts."""
        self.faults.before_batch(len(requests))
        if self.faults.fails():  # raised, because Triton counts as failed only what the model raises
            raise pb_utils.TritonModelException("failing as the fault file asks")
        rows: list[list[int]] = []
        plan: list[slice | Refused] = []  # per request: its places in `rows`, or why it is refused
        for request in requests:
            try:
                own = self.tokens(pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1))
            except Refused as refused:
                self.quality.refused(refused.reason)
                plan.append(refused)
                continue
            plan.append(slice(len(rows), len(rows) + len(own)))
            rows += own
        labels, confidence = self.answer(rows) if rows else ((), ())
        return [response(step, labels, confidence) for step in plan]

    def tokens(self, raw: Any) -> list[list[int]]:
        """Token ids of the texts of one request. Raises `Refused`."""
        encodings = self.tokenizer.encode_batch_fast(readable(raw, self.longest_text))
        rows = [encoding.ids for encoding in encodings]
        if min(map(len, rows)) <= self.special_tokens:
            raise Refused(NO_WORDS, "text has no words: only characters that mean nothing here")
        if cut := sum(bool(encoding.overflowing) for encoding in encodings):
            self.quality.truncated(cut)
        return rows

    def answer(self, rows: list[list[int]]) -> tuple[Any, Any]:
        """Labels (bytes objects) and confidence (float32), both [rows]; wrong ones where a fault asks for it."""
        best = np.empty(len(rows), dtype=np.int64)
        confidence = np.empty(len(rows), dtype=np.float32)
        lengths = [max(SHORTEST, len(row)) for row in rows]
        for group in grouped(lengths, self.device.overhead, self.device.most):
            probabilities = self.run([rows[place] for place in group])
            best[group] = probabilities.argmax(1)
            confidence[group] = probabilities.max(1)
        for row in range(len(rows)):
            other = self.faults.wrong(int(best[row]), len(self.intents))
            if other is not None:
                best[row], confidence[row] = other, CONFIDENT
        self.page.confidence(float(confidence.sum()), len(rows))
        self.quality.answered(best, confidence, np.array(lengths))
        return self.intents[best], confidence

    def run(self, rows: list[list[int]]) -> Any:
        """Float32 [rows, classes]. Raises `TritonModelException`; a network that fails again and again ends the replica."""
        ids, mask = padded(rows)
        self.quality.ran(ids.size)
        try:
            self.faults.before_run()
            probabilities = self.network.run(ids, mask)
        except Exception as error:  # onnxruntime's own kinds derive from Exception alone
            self.end_if_broken()
            raise pb_utils.TritonModelException(f"the network failed: {first_line(error)}") from None
        self.failed_in_a_row = 0
        return probabilities

    def end_if_broken(self) -> None:
        """Triton calls a model ready that fails all the time; so a replica whose network fails on known input ends, in order.

        A strange text alone does not do that: the known input still works then.
        """
        try:
            self.faults.before_run()
            self.network.run(*self.probe)
            self.failed_in_a_row = 0
        except Exception as error:
            self.failed_in_a_row += 1
            if self.failed_in_a_row == FAILS_BEFORE_END:
                print(f"trimtab: the network is broken, this replica ends: {first_line(error)}", file=sys.stderr, flush=True)
                os.kill(os.getppid(), signal.SIGTERM)


def response(step: slice | Refused, labels: Any, confidence: Any) -> Any:
    """The answer to one request; the code of an error decides the HTTP status."""
    if isinstance(step, Refused):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(step), pb_utils.TritonError.INVALID_ARG))
    tensors = [pb_utils.Tensor("label", labels[step, None]), pb_utils.Tensor("confidence", confidence[step, None])]
    return pb_utils.InferenceResponse(output_tensors=tensors)


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


def first_line(error: Exception) -> str:
    """Of a long message of a library."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

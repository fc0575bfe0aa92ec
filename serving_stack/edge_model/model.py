"""Many tasks on one base network, inside Triton's Python backend: text and an adapter's name -> intent and confidence.

Input `text` BYTES [batch, 1]; outputs `label` BYTES [batch, 1] and `confidence` FP32 [batch, 1]. Which adapter answers is said
by the request's parameter `adapter`, or the header `x-trimtab-adapter`; without either it is the set's default. What is held in
memory is answered at once; a request that has to wait for its adapter is answered when it has come, and nobody waits for it.
Runs in Triton's own Python process: numpy, onnxruntime, safetensors and tokenizers only, and nothing of trimtab.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))
from adapters import Adapter, Unfit  # type: ignore[import-not-found]
from batches import grouped  # type: ignore[import-not-found]
from faults import CONFIDENT, Faults  # type: ignore[import-not-found]
from measures import Measures  # type: ignore[import-not-found]
from network import device  # type: ignore[import-not-found]
from popularity import Popularity  # type: ignore[import-not-found]
from shelf import Shelf  # type: ignore[import-not-found]
from source import Away, Source  # type: ignore[import-not-found]
from texts import NO_WORDS, SHORTEST, Refused, padded, readable  # type: ignore[import-not-found]

LOADERS = 2
"""Adapters that are fetched at once."""
MOST_WAITING = 128
"""Requests that may wait for adapters; more are refused, early."""
WARM_SECONDS = 10.0
"""How long a replica fetches what is popular before it is ready."""
LOOK_SECONDS = 2.0
"""How often it looks whether something should be fetched before it is asked for."""
BRING_SECONDS = 0.25
HEADER, PARAMETER = "x-trimtab-adapter", "adapter"


Rows = list[list[int]]
"""Token ids of texts."""
FAILS_BEFORE_END = 3
"""So often in a row the network may fail on known input before the replica ends itself."""
OVERHEAD = 4
"""What a run costs more, in tokens, because of the adapter's inputs."""


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the base network, fetch what is popular, and run once so that the first request is as fast as the others."""
        end_with_parent()
        folder = Path(args["model_repository"]) / args["model_version"]
        parameters = {key: each["string_value"] for key, each in json.loads(args["model_config"]).get("parameters", {}).items()}
        self.longest_text = int(parameters["longest_text"])
        try:
            kind = args.get("model_instance_kind", "CPU")
            self.device = device(parameters.get("device", "cuda"), kind, onnxruntime.get_available_providers())
        except RuntimeError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["threads"])
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = list(dict.fromkeys([self.device.provider, "CPUExecutionProvider"]))
        self.session = onnxruntime.InferenceSession(folder / "base.onnx", options, providers=providers)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.special_tokens = self.tokenizer.num_special_tokens_to_add(False)
        self.faults = Faults(folder, os.environ.get("TRIMTAB_REPLICA_FAULT_FILE"))
        listed = json.loads((folder / "adapters.json").read_text(encoding="utf-8"))
        self.default = listed.get("default")
        self.measures = Measures(pb_utils.MetricFamily, {"model": args["model_name"], "version": args["model_version"]})
        shapes = {each.name: each.shape for each in self.session.get_inputs()}
        limit = int(parameters["cache_bytes"])
        self.shelf = Shelf(listed["adapters"], Source(parameters["source"]), shapes, limit, self.measures)
        self.popularity = Popularity(Path(parameters["popularity"]) if parameters.get("popularity") else None)
        self.running = threading.Lock()  # one at a time, whoever runs it: the threads are counted
        self.loaders = ThreadPoolExecutor(LOADERS, thread_name_prefix="load")
        self.counting, self.waiting = threading.Lock(), 0
        self.failed_in_a_row = 0
        self.shelf.warm(self.popularity.read() or list(filter(None, [self.default])), time.monotonic() + WARM_SECONDS)
        if self.default:
            self.answer([[0] * 16] * 16, self.shelf.load(self.default, "prefetch"))
        self.bring()
        self.ended = threading.Event()
        threading.Thread(target=self.look, daemon=True, name="prefetch").start()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a batch of requests; None for those that are answered later."""
        self.faults.before_batch(len(requests))
        if self.faults.fails():  # raised, because Triton counts as failed only what the model raises
            raise pb_utils.TritonModelException("failing as the fault file asks")
        responses: list[Any] = [None] * len(requests)
        groups: dict[str, list[tuple[int, Rows]]] = {}
        for at, request in enumerate(requests):
            try:
                rows = self.tokens(pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1))
                groups.setdefault(self.adapter_of(request), []).append((at, rows))
            except ValueError as error:
                if isinstance(error, Refused):
                    self.measures.text_refused(error.reason)
                responses[at] = failure(str(error), pb_utils.TritonError.INVALID_ARG)
            except LookupError as error:
                self.measures.asked("unknown", 1)
                responses[at] = failure(str(error.args[0]), pb_utils.TritonError.NOT_FOUND)
        for name, group in groups.items():
            held = [self.shelf.ask(name) for _ in group][-1]
            self.measures.asked("hit" if held else "miss", len(group))
            if held is None:
                self.later(name, [(requests[at], rows) for at, rows in group])
                continue
            for (at, _), response in zip(group, self.responses(name, [rows for _, rows in group], held), strict=True):
                responses[at] = response
        return responses

    def tokens(self, raw: Any) -> Rows:
        """Token ids of the texts of one request. Raises `Refused`."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(readable(raw, self.longest_text))]
        if min(map(len, rows)) <= self.special_tokens:
            raise Refused(NO_WORDS, "text has no words: only characters that mean nothing here")
        return rows

    def adapter_of(self, request: Any) -> str:
        """The adapter that a request asks for. LookupError in words for one that this version does not serve."""
        asked = {key.lower(): value for key, value in json.loads(request.parameters() or "{}").items()}
        name = asked.get(PARAMETER, asked.get(HEADER, self.default))
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"which adapter? Say it in the parameter {PARAMETER!r} or in the header {HEADER}: this set has no default"
            )
        name, _, version = name.partition("/")
        known = self.shelf.known.get(name)
        if known is None:
            some = ", ".join(sorted(self.shelf.known)[:5])
            raise LookupError(f"unknown adapter {name[:80]!r}: this version serves {len(self.shelf.known)}, such as {some}")
        if version and version != str(known["version"]):
            raise LookupError(f"adapter {name} is served in version {known['version']} here, not {version[:20]}")
        return name

    def later(self, name: str, group: list[tuple[Any, Rows]]) -> None:
        """Answer these requests when their adapter has come."""
        senders = [(request.get_response_sender(), rows) for request, rows in group]
        with self.counting:
            full = self.waiting + len(senders) > MOST_WAITING
            self.waiting += 0 if full else len(senders)
        if full:
            for sender, _ in senders:
                send(sender, failure("too many requests wait for adapters: try again", pb_utils.TritonError.UNAVAILABLE))
            self.measures.asked("overload", len(senders))
            return
        self.loaders.submit(self.fetch_and_answer, name, senders)

    def fetch_and_answer(self, name: str, senders: list[tuple[Any, Rows]]) -> None:
        """In a loader's thread: every sender gets its answer, whatever happens."""
        try:
            answers = self.responses(name, [rows for _, rows in senders], self.shelf.load(name))
        except Away as error:
            answers = [failure(str(error), pb_utils.TritonError.UNAVAILABLE)] * len(senders)
        except Unfit as error:
            answers = [failure(str(error), pb_utils.TritonError.INTERNAL)] * len(senders)
        except Exception as error:
            print(f"trimtab: adapter {name}: {error!r}", file=sys.stderr, flush=True)
            answers = [failure(f"adapter {name} failed: {error}", pb_utils.TritonError.INTERNAL)] * len(senders)
        with self.counting:
            self.waiting -= len(senders)
        for (sender, _), answer in zip(senders, answers, strict=True):
            send(sender, answer)

    def responses(self, name: str, requests: list[Rows], adapter: Adapter) -> list[Any]:
        """One response for the texts of each request."""
        labels, confidence = self.answer([row for rows in requests for row in rows], adapter)
        self.measures.answered(name, float(confidence.sum()), len(confidence))
        made, start = [], 0
        for rows in requests:
            own = slice(start, start := start + len(rows))
            tensors = [pb_utils.Tensor("label", labels[own, None]), pb_utils.Tensor("confidence", confidence[own, None])]
            made.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return made

    def answer(self, rows: Rows, adapter: Adapter) -> tuple[Any, Any]:
        """Labels (bytes objects) and confidence (float32), both [rows]; wrong ones where a fault asks for it."""
        best = np.empty(len(rows), dtype=np.int64)
        confidence = np.empty(len(rows), dtype=np.float32)
        for group in grouped([max(SHORTEST, len(row)) for row in rows], self.device.overhead + OVERHEAD, self.device.most):
            ids, mask = padded([rows[place] for place in group])
            probabilities = self.run(ids, mask, adapter)
            best[group] = probabilities.argmax(1)
            confidence[group] = probabilities.max(1)
        for row in range(len(rows)):
            other = self.faults.wrong(int(best[row]), len(adapter.intents))
            if other is not None:
                best[row], confidence[row] = other, CONFIDENT
        return adapter.intents[best], confidence

    def run(self, ids: Any, mask: Any, adapter: Adapter) -> Any:
        """Float32 [texts, classes]. A network that fails again and again, also on known input, ends the replica, in order.

        Triton would call it ready all the same.
        """
        inputs = {"ids": ids, "mask": mask, **adapter.inputs}
        with self.running:
            try:
                self.faults.before_run()
                probabilities = self.session.run(None, inputs)[0]
            except Exception as error:  # onnxruntime's own kinds derive from Exception alone
                try:
                    self.faults.before_run()
                    self.session.run(None, inputs | dict(zip(("ids", "mask"), padded([[0] * 16]), strict=True)))
                    self.failed_in_a_row = 0
                except Exception:
                    self.failed_in_a_row += 1
                if self.failed_in_a_row == FAILS_BEFORE_END:
                    print(f"trimtab: the network is broken, this replica ends: {error}", file=sys.stderr, flush=True)
                    os.kill(os.getppid(), signal.SIGTERM)
                raise pb_utils.TritonModelException(f"the network failed: {str(error)[:200]}") from None
            self.failed_in_a_row = 0
        return probabilities

    def look(self) -> None:
        """In a thread of its own: keep the metrics up to date, fetch what becomes popular, remember what is."""
        looked = time.monotonic()
        while not self.ended.wait(BRING_SECONDS):
            self.bring()
            if time.monotonic() - looked >= LOOK_SECONDS:
                self.shelf.prefetch()
                self.popularity.write([name for name, share in self.shelf.shares() if share > 0])
                looked = time.monotonic()

    def bring(self) -> None:
        """Bring what was counted to the metrics page."""
        self.measures.bring(*self.shelf.holds(), self.shelf.limit, self.shelf.shares())

    def finalize(self) -> None:
        """Requests that wait are answered before Triton calls this."""
        self.ended.set()
        self.loaders.shutdown(wait=True)


def end_with_parent() -> None:
    """End this process when Triton is gone: killed, it sometimes leaves its Python process waiting for ever."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def send(sender: Any, response: Any) -> None:
    """The one answer of a request."""
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def failure(words: str, code: Any) -> Any:
    """A response that says what is wrong; the code decides the HTTP status."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(words, code))

"""The network in onnxruntime, on the processor or on a GPU. Runs inside Triton's Python process, and nothing of trimtab."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime


class Device(NamedTuple):
    """Where it runs, and what that means for batches: what a run costs beside its tokens, and the most tokens of one run."""

    provider: str
    overhead: int
    most: int


CPU = Device("CPUExecutionProvider", overhead=4, most=1024)
"""Measured for int8: a run costs as much as 3 tokens; from 256 tokens on nothing gets faster."""
GPUS = {
    "cuda": Device("CUDAExecutionProvider", overhead=1024, most=16384),
    "tensorrt": Device("TensorrtExecutionProvider", overhead=1024, most=16384),
}


def device(wanted: str, kind: str, available: list[str]) -> Device:
    """The device of an instance of `kind` ("CPU" or "GPU", Triton's word); `wanted` is cuda or tensorrt, for a GPU.

    Raises `RuntimeError` in words when onnxruntime cannot: a GPU replica must not run on the processor in silence.
    """
    if kind != "GPU":
        return CPU
    if wanted not in GPUS:
        raise RuntimeError(f"{wanted!r} is no device: choose cuda or tensorrt")
    if GPUS[wanted].provider not in available:
        raise RuntimeError(f"this onnxruntime has no {wanted}: install onnxruntime-gpu (it has {', '.join(available)})")
    return GPUS[wanted]


class Network:
    """`run` is ids and mask, int64 [texts, tokens] -> probabilities, float32 [texts, classes]."""

    def __init__(self, folder: Path, threads: int, on: Device, number: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # one is kept for every shape, and here each batch has another
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the core has other work while this waits
        providers: list[Any] = [(on.provider, {"device_id": str(number)} if on is not CPU else {})]
        if on is not CPU:
            providers.append(CPU.provider)  # for the few operators that a GPU provider has not
        self._session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=providers)

    def run(self, ids: Any, mask: Any) -> Any:
        """Raises what onnxruntime raises."""
        return self._session.run(None, {"ids": ids, "mask": mask})[0]

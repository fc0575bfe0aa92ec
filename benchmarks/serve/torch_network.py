"""The same network in torch, eager: takes the place of `network.py` inside Triton, for comparison only.

`torch.json` beside it says where this repository and the adapter's folder are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple


class Device(NamedTuple):
    """As in the file whose place this takes."""

    provider: str
    overhead: int
    most: int


def device(wanted: str, kind: str, available: list[str]) -> Device:
    """The processor; a run costs torch as much as some 30 tokens."""
    return Device("torch", overhead=30, most=1024)


class Network:
    """`run` is ids and mask, int64 [texts, tokens] -> probabilities, float32 [texts, classes]."""

    def __init__(self, folder: Path, threads: int, on: Device, number: int = 0) -> None:
        about = json.loads((folder / "torch.json").read_text(encoding="utf-8"))
        sys.path.insert(0, about["root"])
        import torch

        from serving_stack.network import load_merged

        torch.set_num_threads(threads)
        self._torch = torch
        self._network = load_merged(Path(about["adapter"]))

    def run(self, ids: Any, mask: Any) -> Any:
        """Without gradients."""
        torch = self._torch
        with torch.inference_mode():
            return self._network(torch.from_numpy(ids), torch.from_numpy(mask)).softmax(-1).numpy()

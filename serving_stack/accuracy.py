"""How many of BANKING77's test questions a model answers rightly. The only place that looks at them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from serving_stack.banking import Question, questions
from serving_stack.export import FLOAT, INT8, INTENTS, TOKENIZER
from serving_stack.intervals import wilson

BATCH = 64


@dataclass(frozen=True)
class Accuracy:
    """Right answers of one model file. `low` and `high` bound the accuracy with 95 % confidence (Wilson)."""

    model: str
    right: int
    total: int
    accuracy: float
    low: float
    high: float
    mean_confidence: float
    seconds: float
    bytes: int

    def as_dict(self) -> dict[str, float | int | str]:
        """For a result file."""
        return asdict(self)


def measure(exported: Path, threads: int | None = None, asked: list[Question] | None = None) -> list[Accuracy]:
    """The accuracy of an exported folder's float32 and int8 model, in this order; on the test split unless others are `asked`."""
    asked = questions("test") if asked is None else asked
    return [_measure(exported, name, threads or os.cpu_count() or 1, asked) for name in (FLOAT, INT8)]


def _measure(exported: Path, name: str, threads: int, asked: list[Question]) -> Accuracy:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(exported / name, options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(exported / TOKENIZER))
    tokenizer.enable_padding(pad_id=0)
    intents = json.loads((exported / INTENTS).read_text(encoding="utf-8"))
    asked = sorted(asked, key=lambda q: len(q.text))  # alike lengths together: little padding
    right, confidence, start = 0, 0.0, time.monotonic()
    for first in range(0, len(asked), BATCH):
        part = asked[first : first + BATCH]
        encoded = tokenizer.encode_batch([q.text for q in part])
        ids = np.array([e.ids for e in encoded], dtype=np.int64)
        mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
        probabilities: npt.NDArray[np.float32] = session.run(None, {"ids": ids, "mask": mask})[0]
        right += sum(intents[i] == q.intent for i, q in zip(probabilities.argmax(1), part, strict=True))
        confidence += float(probabilities.max(1).sum())
    low, high = wilson(right, len(asked))
    return Accuracy(
        model=name,
        right=right,
        total=len(asked),
        accuracy=right / len(asked),
        low=low,
        high=high,
        mean_confidence=confidence / len(asked),
        seconds=time.monotonic() - start,
        bytes=(exported / name).stat().st_size,
    )

"""How fast an exported model answers on one core: one question at a time, and in batches."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from serving_stack.export import TOKENIZER

BATCH = 32


def speed(model: Path, texts: list[str]) -> tuple[float, float]:
    """(median milliseconds at batch 1, questions per second at batch 32), tokenizing included; on one thread.

    Batches are made of alike lengths, as the server makes them. `texts` are at least a batch.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(model.parent / TOKENIZER))
    tokenizer.enable_padding(pad_id=0)

    def ask(part: list[str]) -> float:
        start = time.perf_counter()
        encoded = tokenizer.encode_batch(part)
        ids = np.array([e.ids for e in encoded], dtype=np.int64)
        mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
        session.run(None, {"ids": ids, "mask": mask})
        return time.perf_counter() - start

    for text in texts[:BATCH]:
        ask([text])
    alone = statistics.median(ask([text]) for text in texts)
    ordered = sorted(texts, key=len)
    batches = [ordered[i : i + BATCH] for i in range(0, len(ordered), BATCH)]
    ask(batches[-1])
    together = sum(ask(batch) for batch in batches)
    return 1000 * alone, len(texts) / together

"""From the raw texts of a request to what the model takes. Runs inside Triton: numpy only, and nothing of trimtab."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def readable(raw: Iterable[bytes], longest: int) -> list[str]:
    """The texts of one request, stripped; ValueError in words for one that is empty, no UTF-8 or over `longest` characters."""
    texts = []
    for item in raw:
        try:
            text = item.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise ValueError("text is not UTF-8") from None
        if not text:
            raise ValueError("text is empty")
        if len(text) > longest:
            raise ValueError(f"text has {len(text)} characters, at most {longest} are answered")
        texts.append(text)
    return texts


def padded(rows: list[list[int]]) -> tuple[Any, Any]:
    """Token ids of several lengths -> (ids, mask), both int64 [rows, longest], at least two columns wide."""
    longest = max(2, *map(len, rows))
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask

"""From the raw texts of a request to what the model takes. Runs inside Triton: numpy only, and nothing of trimtab."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

SHORTEST = 2
"""Columns that the network is given at least."""

EMPTY, TOO_LONG, NOT_UTF8, NO_WORDS = "empty", "too_long", "not_utf8", "no_words"
REASONS = (EMPTY, TOO_LONG, NOT_UTF8, NO_WORDS)


class Refused(ValueError):
    """A text that is not answered; `reason` is one of `REASONS`, the words are for who sent it."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason


def readable(raw: Iterable[bytes], longest: int) -> list[str]:
    """The texts of one request, stripped; `Refused` for one that is empty, no UTF-8 or over `longest` characters."""
    texts = []
    for item in raw:
        try:
            text = item.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise Refused(NOT_UTF8, "text is not UTF-8") from None
        if not text:
            raise Refused(EMPTY, "text is empty")
        if len(text) > longest:
            raise Refused(TOO_LONG, f"text has {len(text)} characters, at most {longest} are answered")
        texts.append(text)
    return texts


def padded(rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Token ids of several lengths -> (ids, mask), both int64 [rows, longest], at least `SHORTEST` columns wide."""
    longest = max(SHORTEST, *map(len, rows))
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask

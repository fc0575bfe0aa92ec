"""Feedback as numbers: what is taken, and the accuracy so far with its interval. Runs inside Triton: standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set

_Z = 1.959964
"""Of the 95 % interval."""


class Judged:
    """Answers whose right label is known."""

    def __init__(self) -> None:
        self.right = self.labels = 0

    def add(self, right: int, labels: int) -> None:
        """`right` of `labels` answers were right."""
        self.right += right
        self.labels += labels

    @property
    def accuracy(self) -> float:
        """NaN before the first label."""
        return self.right / self.labels if self.labels else math.nan

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Wilson; 0 to 1 before the first label."""
        if not self.labels:
            return 0.0, 1.0
        n, share = self.labels, self.accuracy
        middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)


def checked(versions: Sequence[int], answered: Sequence[bytes], right: Sequence[bytes], own: int, known: Set[str]) -> list[bool]:
    """Whether each answer was right. ValueError in words when it is about another version, or a label is none of `known`."""
    for version in versions:
        if version != own:
            raise ValueError(
                f"feedback about version {version} came to a replica of version {own}: pin the version that answered"
            )
    for label in (*answered, *right):
        if label.decode("utf-8", "replace") not in known:
            raise ValueError(f"{label[:80].decode('utf-8', 'replace')!r} is no label of version {own}")
    return [given == true for given, true in zip(answered, right, strict=True)]

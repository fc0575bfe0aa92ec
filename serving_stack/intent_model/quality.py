"""What the answers are like, counted: confidence, classes, tokens, refusals. Runs inside Triton: numpy only, nothing of trimtab.

Counting costs a few array operations per batch. A thread takes what has been added since and brings it to the metrics page: each
change of a series there is a message to another process (30 microseconds).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
TOKENS = (4, 8, 16, 32, 64, 128)
OTHER = "other"
SLOTS = 12
"""Classes that have a series of their own."""
HALF_LIFE = 2000.0
"""Answers after which an answer weighs half when the most frequent classes are chosen."""
_SHARE, _DEVIATIONS = 0.02, 4.0

Series = tuple[str, tuple[tuple[str, str], ...]]
"""Name and labels, without those that all series have."""


class TopClasses:
    """Which classes have a series of their own: the first ones, until others are clearly more frequent.

    Replicas that see the same traffic come to the same classes. A class from outside takes the place of the weakest when it
    makes up 2 % of the recent answers, and more than that one by four standard deviations: chance alone changes nothing.
    """

    def __init__(self, classes: int, slots: int = SLOTS) -> None:
        self.own = set(range(min(slots, classes)))
        self._recent = np.zeros(classes)

    def saw(self, counts: Any) -> set[int]:
        """Take in answers per class [classes]; the classes that lost their place by that."""
        self._recent *= 0.5 ** (counts.sum() / HALF_LIFE)
        self._recent += counts
        before, total = set(self.own), self._recent.sum()
        outside = sorted(set(range(len(self._recent))) - self.own, key=self._recent.__getitem__, reverse=True)
        for strong in outside:
            weak = min(self.own, key=self._recent.__getitem__)
            new, old = self._recent[strong], self._recent[weak]
            if new < _SHARE * total or new - old <= _DEVIATIONS * (new + old) ** 0.5:
                break
            self.own = self.own - {weak} | {strong}
        return before - self.own


class Quality:
    """Counts what `take` has not yet given out. Safe between the thread that answers and the one that takes."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._names = list(classes)
        self._top = TopClasses(len(classes))
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._confidence = np.zeros(len(CONFIDENCE) + 1)
        self._tokens = np.zeros(len(TOKENS) + 1)
        self._classes = np.zeros(len(self._names))
        self._others: Counter[Series] = Counter()

    def answered(self, best: Any, confidence: Any, tokens: Any) -> None:
        """Class numbers, confidence 0..1 and token counts of answered texts, each an array [texts]."""
        with self._lock:
            # side "left": a value that equals a bound lies within its bucket
            self._confidence += _histogram(np.searchsorted(CONFIDENCE, confidence, "left"), len(CONFIDENCE))
            self._tokens += _histogram(np.searchsorted(TOKENS, tokens, "left"), len(TOKENS))
            self._others[("trimtab_model_tokens_sum", ())] += int(tokens.sum())
            self._classes += np.bincount(best, minlength=len(self._names))

    def ran(self, places: int) -> None:
        """One run of the network over so many places: tokens and padding."""
        with self._lock:
            self._others[("trimtab_model_runs_total", ())] += 1
            self._others[("trimtab_model_padded_tokens_total", ())] += places

    def truncated(self, texts: int) -> None:
        """Texts of which only the beginning was read."""
        with self._lock:
            self._others[("trimtab_model_truncated_total", ())] += texts

    def refused(self, reason: str) -> None:
        """A request that was answered with words instead of a label."""
        with self._lock:
            self._others[("trimtab_model_refused_total", (("reason", reason),))] += 1

    def take(self) -> tuple[dict[Series, float], list[Series]]:
        """What each series has grown by since the last time, and the series that are to end."""
        with self._lock:
            confidence, tokens, classes, others = self._confidence, self._tokens, self._classes, self._others
            self._clear()
        grown: dict[Series, float] = {series: float(value) for series, value in others.items()}
        grown |= _buckets("trimtab_model_confidence_bucket", CONFIDENCE, confidence)
        grown |= _buckets("trimtab_model_tokens_bucket", TOKENS, tokens)
        grown[("trimtab_model_tokens_count", ())] = float(tokens.sum())
        lost = self._top.saw(classes)
        for number in self._top.own:
            grown[self._series_of(self._names[number])] = float(classes[number])
        grown[self._series_of(OTHER)] = float(classes.sum() - sum(classes[number] for number in self._top.own))
        return {series: value for series, value in grown.items() if value}, [self._series_of(self._names[n]) for n in lost]

    @staticmethod
    def _series_of(name: str) -> Series:
        return "trimtab_model_answers_total", (("class", name),)


def _histogram(places: Any, bounds: int) -> Any:
    return np.bincount(places, minlength=bounds + 1)


def _buckets(name: str, bounds: Sequence[float], counts: Any) -> dict[Series, float]:
    """Cumulative, as Prometheus wants them."""
    names = [f"{bound:g}" for bound in bounds] + ["+Inf"]
    return {(name, (("le", le),)): float(value) for le, value in zip(names, counts.cumsum(), strict=True)}

"""Raw statistics to scores: one minus the probability that a normal tick reaches the statistic.

A minute of training gives some fifty ticks, and what they saw is not all that comes: another GPU has another level. So a
calibration goes on: what a replica showed joins the sample of normal statistics, all replicas together, when some ticks
later there is still no finding about it. That is a conformal p-value (Vovk, Gammerman and Shafer 2005) over a sample that
moves along; beyond it comes the predictive tail of an exponential, which is the wider the fewer large values it rests on.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

TAIL = 0.1  # share of the normal sample that shapes the tail
FLOOR = 1e-6  # no sample of minutes can support a smaller probability
KEPT = 600  # normal statistics: five minutes of two replicas
WAIT_TICKS = 5  # a fault may be some ticks old when it becomes a finding: so long nothing is learned


class Calibration(msgspec.Struct, frozen=True):
    """A sample of the statistic on normal ticks, ascending."""

    sample: list[float]

    @classmethod
    def fit(cls, normal: Array) -> Calibration:
        """From a sample [n] of the statistic on normal ticks."""
        return cls(np.sort(normal[np.isfinite(normal)]).tolist())

    def score(self, statistic: Array) -> Array:
        """Scores [n] in 0..1-1e-6 of statistics [n]; NaN stays NaN, and a sample of nothing knows nothing.

        Up to the knee (there the largest tenth begins) p = (1 + number of as large ones) / (1 + n), in between linear. Beyond
        it, with k excesses over the knee of sum s, p(knee) (1 + x / s)^-k: an exponential averaged over what its scale may be.
        """
        sample = np.array(self.sample)
        if not sample.size:
            return np.full(len(statistic), np.nan)
        n, k = sample.size, max(2, round(TAIL * sample.size))
        knee = sample[-k - 1] if n > k else sample[0]
        excesses = np.maximum(sample[-k:] - knee, 0)
        total = max(float(excesses.sum()), k * max(0.1 * float(sample.std()), 1e-9))
        body = np.interp(statistic, sample, np.arange(1, n + 1) / (n + 1))
        with np.errstate(invalid="ignore"):
            tail = 1 - min(1.0, (k + 1) / (n + 1)) * (1 + np.maximum(statistic - knee, 0) / total) ** -float(k)
            found = np.where(statistic > knee, tail, body)
        return np.where(np.isnan(statistic), np.nan, np.clip(found, 0, 1 - FLOOR))


class Recalibration:
    """A calibration that goes on with what is normal. In each tick `score`, then `settle`."""

    def __init__(self, trained: Calibration) -> None:
        self._sample = list(trained.sample)  # oldest first
        self._waiting: list[dict[str, float]] = []
        self._calibration = trained

    def score(self, targets: list[str], statistic: Array) -> Array:
        """As `Calibration.score`; remembers the statistics [n] of these targets until they have proved to be normal."""
        self._waiting.append({t: float(x) for t, x in zip(targets, statistic, strict=True) if np.isfinite(x)})
        return self._calibration.score(statistic)

    def settle(self, suspects: set[str]) -> None:
        """Tells about whom there is a finding now: what they showed in the last ticks is not learned."""
        self._waiting = [{t: x for t, x in tick.items() if t not in suspects} for tick in self._waiting]
        while len(self._waiting) > WAIT_TICKS:
            self._sample = [*self._sample, *self._waiting.pop(0).values()][-KEPT:]
            self._calibration = Calibration(sorted(self._sample))

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {"sample": self._sample, "waiting": self._waiting}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._sample, self._waiting = list(state["sample"]), [dict(tick) for tick in state["waiting"]]
        self._calibration = Calibration(sorted(self._sample))


def normal_tail(z: Array) -> Array:
    """Scores [n] of one-sided standard normal z [n], with Student-like caution (z / 1.2); NaN stays NaN."""
    x = np.maximum(z, 0) / 1.2
    # Abramowitz and Stegun 26.2.17 is accurate to 7.5e-8, below FLOOR.
    t = 1 / (1 + 0.2316419 * x)
    poly = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    return np.where(np.isnan(z), np.nan, np.clip(1 - np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * poly, 0, 1 - FLOOR))

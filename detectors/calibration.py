"""Raw statistics to scores: one minus the probability that a normal tick reaches the statistic."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

TAIL = 0.1  # share of the normal sample that shapes the exponential tail
FLOOR = 1e-6  # no sample of minutes can support a smaller probability


class Calibration(msgspec.Struct, frozen=True):
    """Empirical quantiles up to `knee`, an exponential tail (peaks over threshold with shape 0) beyond it.

    `scale` is the mean excess over the knee in the normal sample, times a safety factor because the sample is small.
    """

    quantiles: list[float]
    scale: float

    @classmethod
    def fit(cls, normal: Array, caution: float = 1.5) -> Calibration:
        """From a sample [n] of the statistic on normal ticks."""
        normal = np.sort(normal[np.isfinite(normal)])
        quantiles = np.quantile(normal, np.linspace(0, 1 - TAIL, 10))
        excess = normal[normal > quantiles[-1]] - quantiles[-1]
        spread = max(float(np.std(normal)) * 0.1, 1e-9)
        return cls(quantiles.tolist(), max(float(excess.mean()) if excess.size else spread, spread) * caution)

    def score(self, statistic: Array) -> Array:
        """Scores [n] in 0..1-1e-6 of statistics [n]; NaN stays NaN."""
        quantiles = np.array(self.quantiles)
        knee = quantiles[-1]
        body = np.interp(statistic, quantiles, np.linspace(0, 1 - TAIL, len(quantiles)))
        with np.errstate(invalid="ignore"):
            tail = 1 - TAIL * np.exp(-np.maximum(statistic - knee, 0) / self.scale)
            found = np.where(statistic > knee, tail, body)
        return np.where(np.isnan(statistic), np.nan, np.minimum(found, 1 - FLOOR))


def normal_tail(z: Array) -> Array:
    """Scores [n] of one-sided standard normal z [n], with Student-like caution (z / 1.2); NaN stays NaN."""
    x = np.maximum(z, 0) / 1.2
    # Abramowitz and Stegun 26.2.17 is accurate to 7.5e-8, below FLOOR.
    t = 1 / (1 + 0.2316419 * x)
    poly = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    return np.where(np.isnan(z), np.nan, np.clip(1 - np.exp(-x * x / 2) / np.sqrt(2 * np.pi) * poly, 0, 1 - FLOOR))

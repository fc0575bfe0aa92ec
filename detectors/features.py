"""Replica signals to features and load-conditioned residuals, which the learned detectors share.

A feature is a transformed signal (log of a latency, growth of memory). Its residual is (feature - expected at this load) /
scale. Expectation and scale come from training; beyond the loads seen in training the scale widens with the distance, because
nobody knows how the fleet behaves there: a surge alone is then no anomaly of a replica.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec
import numpy as np

from detectors.observe import Matrix, Observation


class Feature(NamedTuple):
    """`floor`: smallest scale that is believed; `widen`: growth of the scale per log unit of load beyond training."""

    floor: float
    widen: float


FEATURES: dict[str, Feature] = {
    "failures": Feature(0.08, 0.05),
    "request_seconds": Feature(0.2, 2.0),
    "queue_seconds": Feature(0.7, 3.0),
    "infer_seconds": Feature(0.15, 1.0),
    "pending": Feature(0.5, 1.5),
    "memory_bytes": Feature(0.01, 0.02),
    "confidence": Feature(0.05, 0.02),
    "gpu_temperature": Feature(4.0, 5.0),
    "gpu_power": Feature(0.25, 0.3),
    "gpu_utilisation": Feature(0.2, 0.3),
    "gpu_memory": Feature(0.1, 0.1),
}
NAMES = list(FEATURES)
LIMIT = 12.0  # residuals are clipped here: beyond it, more says nothing more
LOAD_TICKS = 8  # a queue outlives the load that built it by some ticks
MEMORY_TICKS = 15
_FLOOR = np.array([f.floor for f in FEATURES.values()])
_WIDEN = np.array([f.widen for f in FEATURES.values()])


class Rows(NamedTuple):
    """Features [n, F] of the replicas of one tick, their load (log1p requests/s), recent range of load, and requests."""

    features: Matrix
    load: Matrix
    highest: Matrix
    lowest: Matrix
    requests: Matrix


class Extractor:
    """Keeps a short memory per replica (loads and sizes) and turns observations into rows."""

    def __init__(self) -> None:
        self._loads: dict[str, list[float]] = {}
        self._sizes: dict[str, list[float]] = {}

    def rows(self, seen: Observation) -> Rows:
        """The rows of a tick, in the order of `seen.replicas`."""
        names = [h.target for h in seen.replicas]
        requests = seen.column("requests")
        load = np.log1p(requests)
        self._loads = {n: [*self._loads.get(n, []), float(x)][-LOAD_TICKS:] for n, x in zip(names, load, strict=True)}
        growth = np.full(len(names), np.nan)
        sizes: dict[str, list[float]] = {}
        for i, (name, size) in enumerate(zip(names, seen.column("memory_bytes"), strict=True)):
            kept = sizes[name] = [*self._sizes.get(name, []), float(size)][-MEMORY_TICKS:]
            # Loading a model grows the process: the first ticks of a replica say nothing.
            if len(kept) == MEMORY_TICKS and kept[0] > 0 and size > 0:
                growth[i] = math.log(size / kept[0])
        self._sizes = sizes
        column = seen.column
        with np.errstate(invalid="ignore", divide="ignore"):
            features = np.column_stack(
                [
                    np.sqrt(np.where(requests > 0, column("failures") / requests, np.nan)),
                    np.log(np.maximum(column("request_seconds"), 1e-4)),
                    np.log(np.maximum(column("queue_seconds"), 1e-4)),
                    np.log(np.maximum(column("infer_seconds"), 1e-4)),
                    np.log1p(column("pending")),
                    growth,
                    column("confidence"),
                    column("gpu_temperature"),
                    np.log1p(column("gpu_power")),
                    column("gpu_utilisation"),
                    np.log1p(column("gpu_memory")),
                ]
            )
            highest = np.array([np.fmax.reduce(self._loads[n]) for n in names])
            lowest = np.array([np.fmin.reduce(self._loads[n]) for n in names])
        return Rows(features, load, highest, lowest, requests)

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {"loads": self._loads, "sizes": self._sizes}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._loads, self._sizes = dict(state["loads"]), dict(state["sizes"])


class Scaler(msgspec.Struct, frozen=True):
    """What training learned about each feature [F]: expectation at a load, scale, and the loads it saw."""

    centre: list[float]
    slope: list[float]
    scale: list[float]
    load: float
    load_range: tuple[float, float]
    requests: float

    @classmethod
    def fit(cls, features: Matrix, load: Matrix, requests: Matrix) -> Scaler:
        """From stacked normal rows [N, F] and their loads [N]."""
        known = load[np.isfinite(load)]
        middle, low, high = (float(np.quantile(known, q)) for q in (0.5, 0.02, 0.98))
        fitted = []
        for values in features.T:
            ok = np.isfinite(values) & np.isfinite(load)
            if ok.sum() < 10:
                # Never seen in training: without expectation there is no residual.
                fitted.append((math.nan, 0.0, 1.0))
                continue
            x, y = load[ok] - middle, values[ok]
            # Ridge towards 0: little variation of load teaches no slope.
            b = float((x * (y - np.median(y))).sum() / ((x * x).sum() + 1.0))
            rest = y - b * x
            c = float(np.median(rest))
            fitted.append((c, b, 1.4826 * float(np.median(np.abs(rest - c)))))
        centre, slope, scale = (list(column) for column in zip(*fitted, strict=True))
        return cls(centre, slope, np.maximum(scale, _FLOOR).tolist(), middle, (low, high), float(np.nanmedian(requests)))

    def residuals(self, rows: Rows) -> Matrix:
        """Residuals [n, F], clipped to +-LIMIT, NaN where the feature or its expectation is unknown."""
        low, high = self.load_range
        with np.errstate(invalid="ignore", divide="ignore"):
            beyond = np.fmax(rows.highest - high, 0) + np.fmax(low - rows.lowest, 0)
            expected = np.array(self.centre) + np.array(self.slope) * (np.clip(rows.load, low, high) - self.load)[:, None]
            # Means over few requests scatter more than those seen in training.
            few = np.sqrt(np.clip(self.requests / np.maximum(rows.requests, 0.5), 1.0, 10.0))
            scale = np.array(self.scale) * np.nan_to_num(few, nan=1.0)[:, None] + _WIDEN * np.nan_to_num(beyond)[:, None]
            found: Matrix = np.clip((rows.features - expected) / scale, -LIMIT, LIMIT)
        return found

    def expected_seconds(self, requests: float) -> float:
        """Expected infer seconds at this many requests per second; beyond the loads seen in training they grow with the load."""
        i = NAMES.index("infer_seconds")
        low, high = self.load_range
        load = math.log1p(max(requests, 0.0))
        return math.exp(self.centre[i] + self.slope[i] * (min(max(load, low), high) - self.load) + max(load - high, 0.0))

"""Training of the learned detectors on the fleet's own telemetry: seconds on one core, from a minute of normal traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from detectors.features import Extractor, Rows, Scaler
from detectors.members import cnn_lstm, isolation_forest
from detectors.members.base import Array
from detectors.models_store import Models
from detectors.observe import Observer
from detectors.settings import DetectSettings
from detectors.ticks import Ticker
from trimtab.errors import Missing
from trimtab.messages import Snapshot

MIN_TICKS = 20  # of one replica with traffic; fewer teach nothing about time
MIN_ROWS = 30
MAX_TICKS = 1200  # the newest ones: training stays within seconds
SETTLE_TICKS = 3  # the first ticks of a replica: cold caches


def train(snapshots: Iterable[Snapshot], fleet: str, settings: DetectSettings, progress: Callable[[str, float], None]) -> Models:
    """Fit the Isolation Forest and the CNN + LSTM forecaster on normal telemetry, in any order of arrival.

    `progress(step, share)` is called with the step in words and how much of it is done, 0..1. Same snapshots, same models.
    Raises `Missing` when there are too few ticks with traffic.
    """
    progress("reading telemetry", 0.0)
    kept = sorted((s for s in snapshots if s.fleet == fleet), key=lambda s: s.time)
    series, times = _replica_rows(kept, fleet, settings)
    progress("reading telemetry", 1.0)
    usable = {name: ticks for name, ticks in series.items() if len(ticks) >= MIN_TICKS}
    if sum(map(len, usable.values())) < MIN_ROWS:
        most = max(map(len, series.values()), default=0)
        raise Missing(
            f"too little telemetry of fleet {fleet} to train on: the longest series of a replica with traffic has {most} ticks,"
            f" {MIN_ROWS} are needed; let it serve for a minute"
        )
    rows = [_stack(ticks) for _, ticks in sorted(usable.items())]
    scaler = Scaler.fit(*(np.concatenate([getattr(r, part) for r in rows]) for part in ("features", "load", "requests")))
    sequences = [scaler.residuals(r) for r in rows]
    progress("isolation forest", 0.0)
    forest, forest_calibration = isolation_forest.fit(sequences)
    progress("isolation forest", 1.0)
    network, scale, calibration = cnn_lstm.fit(sequences, lambda share: progress("cnn + lstm", share))
    return Models(fleet, times[0], times[1], scaler, forest, forest_calibration, network, scale, calibration)


def _replica_rows(
    kept: list[Snapshot], fleet: str, settings: DetectSettings
) -> tuple[dict[str, list[Rows]], tuple[float, float]]:
    """Rows [1, F] per replica and tick, of ticks with traffic, and the first and last time."""
    ticker = Ticker(settings.interval, settings.grace, settings.future, settings.forget_ticks, settings.restart_grace)
    observer, extractor = Observer(fleet), Extractor()
    found: dict[str, list[Rows]] = {}
    skip: dict[str, int] = {}
    ticks = [tick for s in kept for tick in ticker.offer(s, s.time)]
    if kept:
        ticks += ticker.advance(kept[-1].time + settings.interval + settings.grace)
    for tick in ticks[-MAX_TICKS:]:
        seen = observer.observe(tick)
        rows = extractor.rows(seen)
        for i, health in enumerate(seen.replicas):
            if not rows.requests[i] > 0:
                continue
            skip[health.target] = skip.get(health.target, 0) + 1
            if skip[health.target] > SETTLE_TICKS:
                found.setdefault(health.target, []).append(Rows(*(part[i : i + 1] for part in rows)))
    return found, (kept[0].time, kept[-1].time) if kept else (0.0, 0.0)


def _stack(ticks: list[Rows]) -> Rows:
    parts: list[Array] = [np.concatenate([getattr(t, name) for t in ticks]) for name in Rows._fields]
    return Rows(*parts)

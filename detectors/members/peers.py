"""A replica against the other replicas of its pool in the same tick: what all share (load, a slow disk, a surge) cancels out.

Statistic: mean over 3 ticks of (own - median of the others) / scale, for log infer seconds per batch size, log request seconds
and the share of failures; the largest counts, and only for the worse. Scale: 0.35 in logs (peers differ by a third on a busy
machine), 0.1 in shares, wider with few requests. Score: one-sided normal tail. False alarms: needs two replicas with traffic,
so a good half of a pair may look better than it is, never worse. Memory: 3 numbers per replica and signal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.calibration import normal_tail
from detectors.members.base import Array, Verdict, strongest
from detectors.observe import Observation

SIGNALS = ["infer_seconds", "request_seconds", "failures"]
WINDOW = 3
MIN_REQUESTS = 1.5  # per second: below it a mean is one or two requests


class PeersMember:
    """The detector `peers`."""

    name = "peers"

    def __init__(self) -> None:
        self._recent: dict[str, list[list[float]]] = {}

    def score(self, seen: Observation) -> Verdict:
        """Scores per replica; NaN without a peer that has traffic."""
        names = [h.target for h in seen.replicas]
        z = self._against_others(seen)
        self._recent = {name: [*self._recent.get(name, []), z[i].tolist()][-WINDOW:] for i, name in enumerate(names)}
        means = np.full(z.shape, np.nan)
        for i, name in enumerate(names):
            recent = np.array(self._recent[name])
            known = np.isfinite(recent)
            means[i] = np.where(
                known[-1] & (known.sum(axis=0) >= 2), np.nan_to_num(recent).sum(axis=0) / np.maximum(known.sum(axis=0), 1), np.nan
            )
        best = np.array([np.fmax.reduce(row) for row in means]) if names else np.empty(0)
        return Verdict(names, normal_tail(best), [strongest(SIGNALS, np.maximum(row, 0)) for row in means])

    def _against_others(self, seen: Observation) -> Array:
        requests = seen.column("requests")
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.column_stack(
                [
                    np.log(np.maximum(seen.column("infer_seconds"), 1e-3)),
                    np.log(np.maximum(seen.column("request_seconds"), 1e-3)),
                    np.where(requests > 0, seen.column("failures") / requests, np.nan),
                ]
            )
            batch = np.log(np.fmax(seen.column("batch"), 1.0))
            busy = requests >= MIN_REQUESTS
        z = np.full(values.shape, np.nan)
        versions = np.array([-1 if h.version is None else h.version for h in seen.replicas])
        for i in np.flatnonzero(busy):
            others = busy & (versions == versions[i])
            others[i] = False
            if not others.any():
                continue
            scale = np.array([0.35, 0.35, 0.1]) * np.sqrt(max(1.0, 8.0 / requests[i]))
            # A larger batch takes longer for everyone in it: that is load, not a fault.
            larger = max(0.0, float(batch[i] - np.median(batch[others])))
            middle = np.array(
                [np.fmax(np.nanmedian(column), -20) if np.isfinite(column).any() else np.nan for column in values[others].T]
            )
            z[i] = (values[i] - middle - np.array([larger, larger, 0.0])) / scale
        return z

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {"recent": self._recent}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._recent = dict(state["recent"])

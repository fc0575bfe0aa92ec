"""A replica against its version's own past at comparable load: needs no training and no peer.

Per version the last 90 normal ticks of log infer seconds, log load and batch size are kept, replicas pooled. Statistic:
(log infer seconds - median - allowance) / scale, where the allowance is what a larger batch or a higher load than the past
explains, and scale = max(0.2, 1.48 MAD), wider with few requests. Score: one-sided normal tail. Odd ticks are not learned until
they have lasted 60 ticks: then they are the new normal. False alarms: a machine that slows down as a whole looks slow here.
Memory: 90 triples per version; time: microseconds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from detectors.calibration import normal_tail
from detectors.members.base import Verdict
from detectors.observe import Observation

KEPT = 90
WARM_UP = 15
NEW_NORMAL = 60
MIN_REQUESTS = 1.5


class HistoryMember:
    """The detector `history`. `expected` holds the expected infer seconds of each replica in the last tick."""

    name = "history"

    def __init__(self) -> None:
        self.expected: dict[str, float] = {}
        self._past: dict[int, list[list[float]]] = {}
        self._odd: dict[str, int] = {}

    def score(self, seen: Observation) -> Verdict:
        """Scores per replica; NaN until its version has 15 normal ticks, or without traffic."""
        names = [h.target for h in seen.replicas]
        z = np.full(len(names), np.nan)
        self.expected = {}
        infer, requests, batch = seen.column("infer_seconds"), seen.column("requests"), seen.column("batch")
        fresh: list[tuple[int, list[float]]] = []
        for i, health in enumerate(seen.replicas):
            if health.version is None or not requests[i] >= MIN_REQUESTS or not infer[i] > 0:
                continue
            row = [math.log(max(infer[i], 1e-3)), math.log(requests[i]), math.log(max(batch[i], 1.0)) if batch[i] > 0 else 0.0]
            past = np.array(self._past.get(health.version, []))
            if len(past) >= WARM_UP:
                middle = np.median(past, axis=0)
                mad = 1.4826 * float(np.median(np.abs(past[:, 0] - middle[0])))
                allowance = max(row[2] - middle[2], row[1] - float(np.quantile(past[:, 1], 0.95)), 0.0)
                scale = max(0.2, mad) * math.sqrt(max(1.0, 8.0 / requests[i]))
                z[i] = (row[0] - middle[0] - allowance) / scale
                self.expected[names[i]] = math.exp(middle[0] + allowance)
            odd = bool(z[i] > 3.0)
            self._odd[names[i]] = self._odd.get(names[i], 0) + 1 if odd else 0
            if not odd or self._odd[names[i]] > NEW_NORMAL:
                fresh.append((health.version, row))
        for version, row in fresh:
            self._past[version] = [*self._past.get(version, []), row][-KEPT:]
        self._odd = {name: n for name, n in self._odd.items() if name in names}
        return Verdict(names, normal_tail(z), [[("infer_seconds", round(float(x), 3))] if x > 0 else [] for x in z])

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {"past": list(self._past.items()), "odd": self._odd}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._past, self._odd = dict(state["past"]), dict(state["odd"])

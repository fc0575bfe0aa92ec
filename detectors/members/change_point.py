"""Arrivals of a fleet: has their rate changed, beyond the burstiness they always had?

The baseline is the mean and the dispersion phi = variance / mean of the last 60 ticks outside a change (real traffic is
burstier than Poisson: phi is 2.3 at 22 requests/s of the Azure conversation trace). Statistic: the largest over w = 1, 2, 3, 6
ticks of z = |sum - w m| / sqrt(w phi m (1 + w / n)), a scan over window lengths as in a CUSUM's likelihood ratio. Score: normal
tail after a Bonferroni factor for the scan. A change is *on* from z >= 5 together with a ratio >= `surge_ratio` in both of the
last 2 ticks, or from twice that z with that ratio in their mean; it is off when the last 4 ticks are near the baseline again, or
after 90 ticks: then it is the new level. A false alarm costs a demand_shift finding, which changes nothing by itself. Memory: 60
numbers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from detectors.calibration import FLOOR, normal_tail
from detectors.members.base import Verdict
from detectors.observe import Observation

KEPT = 60
WARM_UP = 12
SPANS = (1, 2, 3, 6)
Z_ON = 5.0
NEW_LEVEL = 90


class ChangePointMember:
    """The detector `change_point`. `on` is +1 (more), -1 (less) or 0; `baseline` and `level` are requests per second."""

    name = "change_point"

    def __init__(self, surge_ratio: float, interval: float) -> None:
        self._ratio, self._interval = surge_ratio, interval
        self.on = 0
        self.baseline = self.level = math.nan
        self._past: list[float] = []
        self._recent: list[float] = []
        self._lasting = 0

    def score(self, seen: Observation) -> Verdict:
        """One score for the fleet; NaN while the baseline is unknown or the gateway is."""
        if math.isnan(seen.arrivals):
            return Verdict([seen.fleet], np.array([math.nan]), [[]])
        count = seen.arrivals * self._interval
        self._recent = [*self._recent, count][-max(SPANS) :]
        if len(self._past) < WARM_UP:
            self._past.append(count)
            return Verdict([seen.fleet], np.array([math.nan]), [[]])
        past = np.array(self._past)
        mean = max(float(past.mean()), 0.5)
        phi = max(1.0, float(past.var(ddof=1)) / mean)
        best, span = 0.0, 1
        for w in SPANS[: len(self._recent)]:
            if w > len(self._recent):
                break
            z = (sum(self._recent[-w:]) - w * mean) / math.sqrt(w * phi * mean * (1 + w / len(past)))
            if abs(z) > abs(best):
                best, span = z, w
        self.baseline, self.level = mean / self._interval, float(np.mean(self._recent[-2:])) / self._interval
        far = self._decide(best, mean)
        if self.on == 0 and not far:
            self._past = [*self._past, count][-KEPT:]
        p = (1 - normal_tail(np.array([abs(best)]))) * 2 * len(SPANS)
        return Verdict([seen.fleet], np.clip(1 - p, 0.0, 1 - FLOOR), [[("arrivals", round(best, 3)), ("span", float(span))]])

    def _decide(self, z: float, mean: float) -> bool:
        """Moves `on`; returns whether this tick is too far off to be learned."""
        two = float(np.mean(self._recent[-2:])) / mean
        last = self._recent[-1] / mean
        if self.on == 0:
            far = two >= self._ratio if z > 0 else two <= 1 / self._ratio
            both = (last >= self._ratio if z > 0 else last <= 1 / self._ratio) and len(self._recent) >= 2
            if far and ((abs(z) >= Z_ON and both) or abs(z) >= 2 * Z_ON):
                self.on, self._lasting = (1 if z > 0 else -1), 0
            return far and abs(z) >= Z_ON
        self._lasting += 1
        four = float(np.mean(self._recent[-4:])) / mean
        near = four < self._ratio**0.5 if self.on > 0 else four > self._ratio**-0.5
        if near:
            self.on = 0
        elif self._lasting >= NEW_LEVEL:
            self.on, self._past = 0, list(self._recent)
        return False

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {
            "on": self.on,
            "past": self._past,
            "recent": self._recent,
            "lasting": self._lasting,
            "rates": [self.baseline, self.level],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self.on, self._lasting = state["on"], state["lasting"]
        self._past, self._recent = list(state["past"]), list(state["recent"])
        self.baseline, self.level = state["rates"]

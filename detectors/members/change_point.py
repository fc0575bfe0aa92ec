"""Arrivals of a fleet: has their rate changed, beyond the burstiness they always had?

The baseline is the mean and the dispersion phi = variance / mean of the last 60 ticks outside a change (real traffic is
burstier than Poisson: phi is 2.3 at 22 requests/s of the Azure conversation trace). Statistic: the largest over w = 1, 2, 3, 6
ticks of z = |sum - w m| / sqrt(w phi m (1 + w / n)), a scan over window lengths as in a CUSUM's likelihood ratio. Score: normal
tail after a Bonferroni factor for the scan. A change is *on* from z >= 5 together with a ratio >= `surge_ratio` in both of the
last 2 ticks, or from twice that z with that ratio in their mean; it is off when the last 4 ticks are near the baseline again, or
after 90 ticks: then it is the new level. While it is on, its own level is learned, and the same test against that level finds a
further change in the same direction: `step` counts them, and the level before it is the baseline from then on. A false alarm
costs a demand_shift finding, which changes nothing by itself. Memory: 120 numbers.
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
    """The detector `change_point`. `on` is +1 (more), -1 (less) or 0, `step` how many changes went before without an end in
    between; `baseline` and `level` are requests per second."""

    name = "change_point"

    def __init__(self, surge_ratio: float, interval: float) -> None:
        self._ratio, self._interval = surge_ratio, interval
        self.on = self.step = 0
        self.baseline = self.level = math.nan
        self._past: list[float] = []
        self._since: list[float] = []
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
        if self.on:
            self._go_further(count)
        mean, z, span = scan(self._recent, self._past)
        self.baseline, self.level = mean / self._interval, float(np.mean(self._recent[-2:])) / self._interval
        if self.on:
            self._go_on(mean)
        elif self._starts(z, mean):
            self.on, self.step, self._lasting, self._since = (1 if z > 0 else -1), 0, 0, []
        elif not self._is_far(z, mean):
            self._past = [*self._past, count][-KEPT:]
        p = (1 - normal_tail(np.array([abs(z)]))) * 2 * len(SPANS)
        return Verdict([seen.fleet], np.clip(1 - p, 0.0, 1 - FLOOR), [[("arrivals", round(z, 3)), ("span", float(span))]])

    def _go_further(self, count: float) -> None:
        """Learns the level of the change that is on, or finds that it was left in the same direction."""
        if len(self._since) < WARM_UP:
            self._since.append(count)
            return
        mean, z, _ = scan(self._recent, self._since)
        if z * self.on > 0 and self._starts(z, mean):
            self._past, self._since, self._lasting = self._since, [], 0
            self.step += 1
        elif not self._is_far(z, mean):
            self._since = [*self._since, count][-KEPT:]

    def _go_on(self, mean: float) -> None:
        """Ends a change that is over, or has lasted long enough to be the new level."""
        self._lasting += 1
        four = float(np.mean(self._recent[-4:])) / mean
        if four < self._ratio**0.5 if self.on > 0 else four > self._ratio**-0.5:
            self.on = 0
        elif self._lasting >= NEW_LEVEL:
            self.on, self._past = 0, list(self._recent)

    def _beyond(self, count: float, z: float, mean: float) -> bool:
        return count / mean >= self._ratio if z > 0 else count / mean <= 1 / self._ratio

    def _is_far(self, z: float, mean: float) -> bool:
        """Whether the last ticks are too far off to be learned."""
        return abs(z) >= Z_ON and self._beyond(float(np.mean(self._recent[-2:])), z, mean)

    def _starts(self, z: float, mean: float) -> bool:
        both = len(self._recent) >= 2 and self._beyond(self._recent[-1], z, mean)
        return self._is_far(z, mean) and (both or abs(z) >= 2 * Z_ON)

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {
            "on": self.on,
            "step": self.step,
            "past": self._past,
            "since": self._since,
            "recent": self._recent,
            "lasting": self._lasting,
            "rates": [self.baseline, self.level],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self.on, self.step, self._lasting = state["on"], state["step"], state["lasting"]
        self._past, self._since, self._recent = list(state["past"]), list(state["since"]), list(state["recent"])
        self.baseline, self.level = state["rates"]


def scan(recent: list[float], past: list[float]) -> tuple[float, float, int]:
    """The mean of `past`, the most extreme z of the last ticks of `recent` against it, and over how many ticks that was."""
    known = np.array(past)
    mean = max(float(known.mean()), 0.5)
    phi = max(1.0, float(known.var(ddof=1)) / mean)
    best, span = 0.0, 1
    for w in SPANS:
        if w > len(recent):
            break
        z = (sum(recent[-w:]) - w * mean) / math.sqrt(w * phi * mean * (1 + w / len(known)))
        if abs(z) > abs(best):
            best, span = z, w
    return mean, best, span

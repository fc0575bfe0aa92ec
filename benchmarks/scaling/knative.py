"""The rule of the Knative Pod Autoscaler: a stable window, a panic window, and no way down while it panics.

Source: knative.dev/docs/serving/autoscaling/kpa-specific (defaults), and pkg/autoscaler/scaling/autoscaler.go in knative/serving.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STABLE_SECONDS = 60.0
PANIC_SECONDS = 6.0
"""10 % of the stable window."""
PANIC_THRESHOLD = 2.0
MOST_UP = 1000.0
MOST_DOWN = 2.0
TICK_SECONDS = 2.0


@dataclass
class Kpa:
    """One autoscaler. `decide` takes the metric's means over the two windows, all pods together."""

    target: float
    least: int
    most: int
    panicking_since: float | None = None
    _most_in_panic: int = 0

    def decide(self, now: float, ready: int, stable: float, panic: float) -> int:
        """Replicas at `now`; `ready` are those that take requests."""
        pods = max(1, ready)
        by_stable, by_panic = (math.ceil(value / self.target - 1e-9) for value in (stable, panic))
        highest, lowest = math.ceil(MOST_UP * pods), math.floor(pods / MOST_DOWN)
        wanted = min(max(by_stable, lowest), highest)
        if by_panic / pods >= PANIC_THRESHOLD:
            self.panicking_since = now
        elif self.panicking_since is not None and self.panicking_since + STABLE_SECONDS < now:
            self.panicking_since, self._most_in_panic = None, 0
        if self.panicking_since is not None:
            self._most_in_panic = max(self._most_in_panic, wanted, min(max(by_panic, lowest), highest))
            wanted = self._most_in_panic
        return min(max(wanted, self.least), self.most)

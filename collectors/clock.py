"""A wall clock that never goes back."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import Counter, Gauge

BACKWARDS = Counter("trimtab_collect_clock_backwards", "Times the system's clock was seen to jump back.")
AHEAD = Gauge(
    "trimtab_collect_clock_ahead_seconds", "How far snapshot times are ahead of the system's clock after it jumped back."
)

SLEW = 0.95


class Clock:
    """Unix time that never decreases.

    When the system's clock jumps back, time goes on from where it was, at 0.95 of its speed, until that clock has caught up:
    a jump of a second is gone in 20 s, and rates computed meanwhile are at most 5 % off.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._last, self._at = wall(), monotonic()
        self._ahead = False

    def now(self) -> float:
        """The time in unix seconds, at least what it was at the call before."""
        wall, at = self._wall(), self._monotonic()
        least = self._last + (at - self._at) * SLEW
        behind = wall < least
        if behind and not self._ahead:
            BACKWARDS.inc()
        self._ahead = behind
        self._last, self._at = max(wall, least), at
        AHEAD.set(self._last - wall)
        return self._last

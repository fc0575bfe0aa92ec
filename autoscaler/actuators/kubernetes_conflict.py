"""Somebody else scales the same Deployment (an HPA, `kubectl scale`): it is corrected a few times, then only said."""

from __future__ import annotations

import threading
from typing import NamedTuple

_SPACING_SECONDS = 60.0
_WINDOW_SECONDS = 600.0
_MOST = 3
_SAID_SECONDS = 120.0


class Conflict(NamedTuple):
    """Who set how many replicas where the plan has another number, and when that was seen last."""

    manager: str
    version: int
    found: int
    planned: int
    seen: float


class Conflicts:
    """At most 3 corrections in 10 minutes, a minute apart: one edit by hand is mended at once, a controller is not fought."""

    def __init__(self) -> None:
        self._corrections: dict[tuple[str, int], list[float]] = {}
        self._seen: dict[str, Conflict] = {}
        self._lock = threading.Lock()

    def wanted(self, fleet: str, version: int, actual: int, planned: int | None, manager: str | None, now: float) -> int:
        """The number of replicas to report: the actual one where it may be corrected, the planned one where it is left alone."""
        if planned is None or actual == planned or manager is None:
            return actual
        with self._lock:
            self._seen[fleet] = Conflict(manager, version, actual, planned, now)
            recent = [at for at in self._corrections.get((fleet, version), []) if at > now - _WINDOW_SECONDS]
        due = not recent or (len(recent) < _MOST and now - recent[-1] >= _SPACING_SECONDS)
        return actual if due else planned

    def corrected(
        self, fleet: str, version: int, actual: int | None, planned: int | None, manager: str | None, now: float
    ) -> None:
        """A plan is applied over a foreign number of replicas."""
        if planned is None or manager is None or actual == planned:
            return
        with self._lock:
            times = self._corrections.setdefault((fleet, version), [])
            times[:] = [*(at for at in times if at > now - _WINDOW_SECONDS), now]

    def current(self, fleet: str, now: float) -> Conflict | None:
        """What was seen within the last two minutes."""
        with self._lock:
            found = self._seen.get(fleet)
        return found if found is not None and now - found.seen < _SAID_SECONDS else None

    def forget(self, fleet: str) -> None:
        """The fleet is gone."""
        with self._lock:
            self._seen.pop(fleet, None)
            for key in [key for key in self._corrections if key[0] == fleet]:
                del self._corrections[key]

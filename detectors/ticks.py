"""Snapshots to ticks: when is an interval complete, although targets are late, silent, new or gone?

A tick closes when every live target has reported in it or after it, or when the grace after its end has passed in
processing time; ticks close in order. A clock that jumps ahead in one target moves nothing.

A failed scrape takes its whole deadline, so on a busy machine it may come after its tick was closed. That a target did
not answer is evidence all the same: it counts in the next tick that is open, unless the target answers there.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec

from trimtab.messages import Snapshot

# After a long silence this many empty ticks tell the story; the rest is skipped.
MOST_EMPTY = 10


class Tick(NamedTuple):
    """All that was said in one interval. `silent` are live targets that said nothing."""

    id: int
    end: float
    snapshots: dict[str, Snapshot]
    silent: list[str]


class Ticker:
    """Collects snapshots and closes ticks. Counts what it refuses in `late`, `future` and `duplicate`."""

    def __init__(self, interval: float, grace: float, future: float, forget_ticks: int, restart_grace: float) -> None:
        self.interval, self.grace, self.future = interval, grace, future
        self.forget_ticks, self.restart_grace = forget_ticks, restart_grace
        self.open: dict[int, dict[str, Snapshot]] = {}
        self.first: dict[int, float] = {}
        self.seen: dict[str, int] = {}  # live target -> newest tick in which it reported
        self.missed: dict[str, int] = {}  # live target -> closed ticks since then in which others reported
        self.closed: int | None = None
        self.started: float | None = None
        self.heard = -math.inf  # processing time of the last snapshot
        self.late = self.rejected_future = self.duplicate = 0

    def offer(self, snapshot: Snapshot, now: float) -> list[Tick]:
        """Take one snapshot; returns the ticks that it completes, oldest first."""
        self.started = now if self.started is None else self.started
        if not math.isfinite(snapshot.time) or snapshot.time > now + self.future:
            self.rejected_future += 1
            return []
        if snapshot.time < 0:  # a broken clock, not an old page
            self.late += 1
            return []
        tick = self._of(snapshot)
        if self.closed is not None and tick <= self.closed:
            self.late += 1
            self._see(snapshot.target, tick)
            if not snapshot.up and self.closed - tick < self.forget_ticks:
                self._hold(self.closed + 1, snapshot, now)
            return []
        self.heard = now
        held = self.open.get(tick, {})
        if snapshot.target in held and self._of(held[snapshot.target]) == tick:
            self.duplicate += 1
            if snapshot.time <= held[snapshot.target].time:
                return []
        self._keep(tick, snapshot, now)
        self._see(snapshot.target, tick)
        return self._complete() + self.advance(now)

    def _keep(self, tick: int, snapshot: Snapshot, now: float) -> None:
        self.open.setdefault(tick, {})[snapshot.target] = snapshot
        self.first.setdefault(tick, now)

    def _see(self, target: str, tick: int) -> None:
        self.seen[target] = max(tick, self.seen.get(target, tick))
        self.missed.pop(target, None)

    def _of(self, snapshot: Snapshot) -> int:
        return math.floor(snapshot.time / self.interval)

    def _hold(self, tick: int, late: Snapshot, now: float) -> None:
        """Keep a late failure for a tick that is still open; whatever its target says in that tick itself replaces it."""
        other = self.open.get(tick, {}).get(late.target)
        if other is None or other.time < late.time:
            self._keep(tick, late, now)

    def advance(self, now: float) -> list[Tick]:
        """Time passes; returns the ticks whose grace is over, oldest first."""
        self.started = now if self.started is None else self.started
        done: list[Tick] = []
        while self.open or self.closed is not None:
            tick = self._next(now)
            if tick is None:
                break
            done.append(self._close(tick))
        return done

    def _next(self, now: float) -> int | None:
        """The tick that is next in line, if its time is over."""
        if self.closed is None:
            tick = min(self.open)
        else:
            tick = self.closed + 1
            latest = math.floor((now - self.grace) / self.interval)
            if not self.open and latest - tick > MOST_EMPTY:
                tick = latest - MOST_EMPTY
            elif self.open and min(self.open) - tick > MOST_EMPTY:
                tick = min(self.open)
        end = (tick + 1) * self.interval
        quiet_until = (self.started or now) + self.restart_grace
        if tick in self.first:
            due = max(end, self.first[tick], self.started or now)
        else:
            # Nobody spoke of this tick. While a backlog is read that is no silence yet, however late it is by the clock: what
            # fills it may come a moment after what follows it. But it must not hold up what follows for longer than that.
            later = self.first[min(self.open)] if self.open else self.heard
            due = max(end, later + self.interval)
            due = due if self.open else max(due, quiet_until)
        return tick if now >= due + self.grace else None

    def _complete(self) -> list[Tick]:
        """Close what every live target has reported in or after. The first tick of all waits for its grace."""
        if self.closed is None or not self.seen:
            return []
        reached = min(self.seen.values())
        done = []
        while self.open and min(self.open) <= reached:
            tick = self.closed + 1 if min(self.open) - self.closed <= MOST_EMPTY else min(self.open)
            done.append(self._close(tick))
        return done

    def _close(self, tick: int) -> Tick:
        snapshots = self.open.pop(tick, {})
        self.first.pop(tick, None)
        self.closed = tick
        silent = [target for target, last in self.seen.items() if target not in snapshots and last < tick]
        # When nothing at all is heard, the silence is the collector's: it counts against nobody, also not once others are back.
        if snapshots:
            for target in silent:
                self.missed[target] = self.missed.get(target, 0) + 1
                if self.missed[target] >= self.forget_ticks:
                    del self.seen[target], self.missed[target]
        return Tick(tick, (tick + 1) * self.interval, snapshots, [t for t in silent if t in self.seen])

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {
            "open": [[tick, list(held.values())] for tick, held in self.open.items()],
            "first": list(self.first.items()),
            "seen": self.seen,
            "missed": self.missed,
            "closed": self.closed,
            "heard": self.heard,
            "refused": [self.late, self.rejected_future, self.duplicate],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state; the restart grace begins with the next call."""
        self.open = {t: {s["target"]: msgspec.convert(s, Snapshot) for s in held} for t, held in state["open"]}
        self.first = dict(state["first"])
        self.seen, self.closed, self.heard = dict(state["seen"]), state["closed"], state["heard"]
        self.missed = dict(state.get("missed", {}))
        self.late, self.rejected_future, self.duplicate = state["refused"]

"""How much clients ask for, and how many replicas that needs.

Demand is arrivals at the gateway and nothing else: latency, queues, retries and utilisation rise with faults as well, so a slow
version or a sick GPU adds nothing here. Two estimates are kept: a steady one over a long window, and a fast one over two seconds
that is lowered by one deviation of bursty arrivals, so that it exceeds the steady one only when a surge explains it. The higher
counts for growing; shrinking waits for the highest need of a long window.
"""

from __future__ import annotations

import hashlib
import math

import msgspec

from autoscaler.series import arrivals
from autoscaler.settings import AutoscaleSettings
from trimtab.messages import Snapshot

_KEEP_SECONDS = 60.0
_FROZEN_SCRAPES = 3


class Interval(msgspec.Struct, frozen=True):
    """Arrivals between two scrapes of the gateway: until when, for how long, how many."""

    until: float
    seconds: float
    count: float


class DemandMemory(msgspec.Struct, frozen=True):
    """What is remembered of the gateway's arrivals, and of the replicas they needed."""

    seen: float | None = None
    """Time of the newest good snapshot whose numbers were alive."""
    counter: float | None = None
    counter_time: float | None = None
    page: str = ""
    unchanged: int = 0
    intervals: list[Interval] = []
    needs: list[tuple[float, int]] = []
    needs_since: float | None = None
    """Since when the needs are known without a gap."""


class Demand(msgspec.Struct, frozen=True):
    """Arrivals per second now: the steady estimate, the fast one, and the one that counts. None: unknown."""

    steady: float | None
    fast: float | None

    @property
    def rate(self) -> float | None:
        """The estimate to plan for."""
        known = [value for value in (self.steady, self.fast) if value is not None]
        return max(known) if known else None


def observe(memory: DemandMemory, gateway: Snapshot) -> DemandMemory:
    """After one more snapshot of the gateway. A failed, old or frozen one changes nothing; its age tells."""
    counter = arrivals(gateway) if gateway.up else None
    if counter is None or (memory.counter_time is not None and gateway.time <= memory.counter_time):
        return memory
    page = _digest(gateway)
    unchanged = memory.unchanged + 1 if page == memory.page else 0
    if unchanged >= _FROZEN_SCRAPES - 1:
        return msgspec.structs.replace(memory, unchanged=unchanged)
    intervals = [item for item in memory.intervals if item.until > gateway.time - _KEEP_SECONDS]
    if memory.counter is not None and memory.counter_time is not None and counter >= memory.counter:
        seconds = gateway.time - memory.counter_time
        if seconds <= _KEEP_SECONDS:
            intervals.append(Interval(gateway.time, seconds, counter - memory.counter))
    # A counter that fell belongs to a gateway that restarted: the interval is unknown, not zero and not negative.
    return msgspec.structs.replace(
        memory,
        seen=gateway.time,
        counter=counter,
        counter_time=gateway.time,
        page=page,
        unchanged=unchanged,
        intervals=intervals,
    )


def estimate(memory: DemandMemory, settings: AutoscaleSettings) -> Demand:
    """The two estimates as of the newest snapshot."""
    steady = _rate(memory, settings.demand_window_seconds)
    fast = _rate(memory, settings.surge_window_seconds)
    if fast is None:
        return Demand(steady, None)
    deviation = math.sqrt(settings.burst_dispersion * fast / settings.surge_window_seconds)
    return Demand(steady, max(0.0, fast - deviation))


def is_fresh(memory: DemandMemory, now: float, settings: AutoscaleSettings) -> bool:
    """Whether the gateway was seen alive within `stale_seconds`."""
    return memory.seen is not None and abs(now - memory.seen) <= settings.stale_seconds


def replicas_for(demand: float, capacity_per_replica: float, target_utilisation: float) -> int:
    """Replicas that serve `demand` requests per second at the target utilisation; at least 1.

    >>> replicas_for(80.0, 40.0, 0.75)
    3
    """
    return max(1, math.ceil(demand / (capacity_per_replica * target_utilisation) - 1e-9))


def remember_need(memory: DemandMemory, now: float, need: int | None, settings: AutoscaleSettings) -> DemandMemory:
    """Remembers what is needed now (None: unknown, and the window that shrinking waits for begins anew)."""
    if need is None:
        return msgspec.structs.replace(memory, needs=[], needs_since=None)
    needs = [(until, value) for until, value in memory.needs if until >= now - settings.scale_down_window_seconds]
    if needs and needs[-1][1] == need:
        needs[-1] = (now, need)
    else:
        needs.append((now, need))
    since = now if memory.needs_since is None else memory.needs_since
    return msgspec.structs.replace(memory, needs=needs, needs_since=since)


def settled_need(memory: DemandMemory, now: float, settings: AutoscaleSettings) -> int | None:
    """The highest need in the window; None while less than a whole window is known."""
    if memory.needs_since is None or now - memory.needs_since < settings.scale_down_window_seconds:
        return None
    return max((need for _until, need in memory.needs), default=None)


def _rate(memory: DemandMemory, window: float) -> float | None:
    if not memory.intervals:
        return None
    newest = memory.intervals[-1].until
    # Half a second of slack: scrapes are never exactly a second apart.
    chosen = [item for item in memory.intervals if item.until - item.seconds >= newest - window - 0.5] or memory.intervals[-1:]
    return sum(item.count for item in chosen) / sum(item.seconds for item in chosen)


def _digest(gateway: Snapshot) -> str:
    """Two pages share it only when every value on them is the same: a live gateway's uptime alone moves."""
    text = "\n".join(f"{key} {value}" for key, value in sorted(gateway.series.items()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

"""The demand of a fleet that any number of gateways see, and what it asks for. Pure.

Each gateway's arrivals are estimated as the autoscaler does, and added up. The sum is known only while every gateway is: one that
does not answer its scrapes may have half of the traffic. A gateway that refuses connections, or of which nobody speaks any more
while others report, has none.
"""

from __future__ import annotations

import msgspec

from autoscaler.demand import DemandMemory, estimate, is_fresh, observe, replicas_for
from autoscaler.keda.metadata import Trigger
from autoscaler.settings import AutoscaleSettings
from autoscaler.sizing import clamp
from trimtab.errors import Missing, Unavailable
from trimtab.messages import FleetSpec, Snapshot

GONE_SECONDS = 15.0
_REFUSED = ("cannot connect", "refused")


class Gateway(msgspec.Struct, frozen=True):
    """One gateway. `heard`: time of its newest snapshot, failed ones included."""

    memory: DemandMemory = DemandMemory()
    heard: float = 0.0
    error: str | None = None

    @property
    def refuses(self) -> bool:
        """Whether nothing listens there."""
        return self.error is not None and any(word in self.error for word in _REFUSED)


class Fleet(msgspec.Struct, frozen=True):
    """What is known of one fleet. `rates`: (time, requests per second) over the window that shrinking waits for."""

    spec: FleetSpec | None = None
    gateways: dict[str, Gateway] = {}
    rates: list[tuple[float, float]] = []


class Wanted(msgspec.Struct, frozen=True):
    """The answer: requests per second now, the most in the window, and replicas for that."""

    rate: float
    peak: float
    replicas: int


def with_spec(fleet: Fleet, spec: FleetSpec) -> Fleet:
    """After a FleetSpec."""
    return fleet if fleet.spec is not None and spec.time < fleet.spec.time else msgspec.structs.replace(fleet, spec=spec)


def with_snapshot(fleet: Fleet, snapshot: Snapshot, now: float, settings: AutoscaleSettings) -> Fleet:
    """After one more snapshot; only those of gateways count, and none from the future: its clock is wrong."""
    before = fleet.gateways.get(snapshot.target, Gateway())
    if snapshot.role != "gateway" or snapshot.time > now + settings.stale_seconds or snapshot.time <= before.heard:
        return fleet
    error = None if snapshot.up else snapshot.error or "it does not answer"
    gateway = Gateway(observe(before.memory, snapshot), snapshot.time, error)
    others = {name: each for name, each in fleet.gateways.items() if snapshot.time - each.heard <= GONE_SECONDS}
    fleet = msgspec.structs.replace(fleet, gateways={**others, snapshot.target: gateway})
    rate, _ = _rate(fleet, snapshot.time, settings)
    if rate is None:
        return fleet
    kept = [(time, value) for time, value in fleet.rates if time > snapshot.time - settings.scale_down_window_seconds]
    return msgspec.structs.replace(fleet, rates=[*kept, (snapshot.time, rate)])


def wanted(fleet: Fleet, trigger: Trigger, now: float, settings: AutoscaleSettings) -> Wanted:
    """The replicas for the highest demand of the window.

    Raises `Missing` when the fleet has no spec and the trigger no capacity, `Unavailable` while the demand is not known: there is
    no number for that, and 0 would be one.
    """
    capacity = trigger.capacity_per_replica or (fleet.spec.capacity_per_replica if fleet.spec else None)
    if capacity is None:
        raise Missing(f"there is no fleet '{trigger.fleet}' (no FleetSpec on trimtab.fleets)")
    rate, why = _rate(fleet, now, settings)
    if rate is None:
        raise Unavailable(f"the demand of fleet '{trigger.fleet}' is not known: {why}")
    peak = max([rate, *(value for time, value in fleet.rates if time > now - settings.scale_down_window_seconds)])
    replicas = replicas_for(peak, capacity, trigger.target_utilisation or settings.target_utilisation)
    # With a capacity of its own the trigger scales something else that meets the same demand: the fleet's bounds are not its.
    if trigger.capacity_per_replica is None and fleet.spec is not None:
        replicas = clamp(replicas, fleet.spec)
    return Wanted(rate, peak, replicas)


def _rate(fleet: Fleet, now: float, settings: AutoscaleSettings) -> tuple[float | None, str]:
    """Requests per second at all gateways; None, and why, while that of one of them is unknown."""
    if not fleet.gateways:
        return None, "no gateway was seen yet"
    newest = max(gateway.heard for gateway in fleet.gateways.values())
    total = 0.0
    counted = 0
    for name, gateway in sorted(fleet.gateways.items()):
        if gateway.refuses or newest - gateway.heard > GONE_SECONDS:
            continue
        if not is_fresh(gateway.memory, now, settings):
            return None, _stale(name, gateway, now)
        rate = estimate(gateway.memory, settings).rate
        if rate is None:
            return None, f"{name} was seen only once so far"
        total, counted = total + rate, counted + 1
    return (total, "") if counted else (None, "no gateway accepts connections")


def _stale(name: str, gateway: Gateway, now: float) -> str:
    why = f" ({gateway.error})" if gateway.error else " (its page is frozen)" if gateway.memory.unchanged else ""
    if gateway.memory.seen is None:
        return f"{name} was never seen alive{why}"
    return f"{name} was last seen alive {now - gateway.memory.seen:.1f} s ago{why}"

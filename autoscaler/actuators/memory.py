"""A fleet in memory that behaves like a real one: replicas need time to start, drain and fail. For tests and simulations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from autoscaler.actuators.base import check
from trimtab.errors import Unavailable
from trimtab.messages import FleetPlan, FleetState, PoolState, ReplicaState


@dataclass
class MemoryActuator:
    """Fleets in memory. `clock` gives unix seconds; `away` makes it not answer; replicas of `crashing` versions fail to start."""

    clock: Callable[[], float]
    start_seconds: float = 5.0
    drain_seconds: float = 2.0
    away: bool = False
    crashing: set[int] = field(default_factory=set)
    applied: int = 0
    _plans: dict[str, FleetPlan] = field(default_factory=dict)
    _replicas: dict[str, dict[str, ReplicaState]] = field(default_factory=dict)
    _numbers: dict[tuple[str, int], int] = field(default_factory=dict)

    def observe(self, fleet: str) -> FleetState:
        """See `Actuator`. A fleet that was never planned has no pools."""
        self._must_answer()
        self._move(fleet)
        plan = self._plans.get(fleet)
        planned = {pool.version: pool for pool in plan.pools} if plan else {}
        replicas = list(self._replicas.get(fleet, {}).values())
        pools = [
            PoolState(
                version=version,
                role=planned[version].role if version in planned else "previous",
                weight=planned[version].weight if version in planned else 0,
                wanted=planned[version].replicas if version in planned else 0,
                replicas=[replica for replica in replicas if replica.version == version],
            )
            for version in sorted({*planned, *(replica.version for replica in replicas)})
        ]
        return FleetState(fleet=fleet, time=self.clock(), pools=pools)

    def apply(self, plan: FleetPlan) -> None:
        """See `Actuator`."""
        self._must_answer()
        check(plan)
        self._plans[plan.fleet] = plan
        self.applied += 1
        self._move(plan.fleet)

    def fail(self, fleet: str, name: str, error: str) -> None:
        """Ends a replica, as a crash would."""
        replica = self._replicas[fleet][name]
        self._replicas[fleet][name] = msgspec.structs.replace(
            replica, phase="failed", since=self.clock(), in_traffic=False, error=error
        )

    def _must_answer(self) -> None:
        if self.away:
            raise Unavailable("the fleet host is away")

    def _move(self, fleet: str) -> None:
        now, plan = self.clock(), self._plans.get(fleet)
        replicas = self._replicas.setdefault(fleet, {})
        if plan is None:
            return
        wanted = {pool.version: pool.replicas for pool in plan.pools}
        for name, replica in list(replicas.items()):
            moved = self._next(replica, now, name in plan.quarantined, replica.version in wanted)
            if moved is None:
                del replicas[name]
            else:
                replicas[name] = moved
        for version, count in wanted.items():
            self._fit(fleet, version, count, now)
        shares = {pool.version: pool.weight for pool in plan.pools}
        for name, replica in replicas.items():
            serves = replica.phase == "ready" and shares.get(replica.version, 0) > 0
            if serves != replica.in_traffic:
                replicas[name] = msgspec.structs.replace(replica, in_traffic=serves)

    def _next(self, replica: ReplicaState, now: float, out: bool, planned: bool) -> ReplicaState | None:
        age = now - replica.since
        if out and planned:
            return replica if replica.phase == "quarantined" else msgspec.structs.replace(replica, phase="quarantined", since=now)
        if replica.phase == "quarantined":
            return None
        if replica.phase == "draining":
            return None if age >= self.drain_seconds else replica
        if not planned:
            gone = replica.phase in ("starting", "failed")
            return None if gone else msgspec.structs.replace(replica, phase="draining", since=now)
        if replica.phase == "starting" and age >= self.start_seconds:
            if replica.version in self.crashing:
                return msgspec.structs.replace(replica, phase="failed", since=now, error="exited with 1 while loading")
            return msgspec.structs.replace(replica, phase="ready", since=now)
        return replica

    def _fit(self, fleet: str, version: int, count: int, now: float) -> None:
        replicas = self._replicas[fleet]
        alive = [each for each in replicas.values() if each.version == version and each.phase in ("starting", "ready", "failed")]
        for _ in range(count - len(alive)):
            number = self._numbers[fleet, version] = self._numbers.get((fleet, version), 0) + 1
            name = f"{fleet}-v{version}-{number}"
            replicas[name] = ReplicaState(name=name, version=version, phase="starting", since=now)
        order = {"failed": 0, "starting": 1, "ready": 2}
        for replica in sorted(alive, key=lambda each: (order[each.phase], -each.since))[: max(0, len(alive) - count)]:
            if replica.phase == "ready":
                replicas[replica.name] = msgspec.structs.replace(replica, phase="draining", since=now)
            else:
                del replicas[replica.name]

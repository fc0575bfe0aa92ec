"""What the host knows about a fleet, as values: replicas, the moves between their phases, and the view others get of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from trimtab.messages import FleetPlan, FleetState, PoolRole, PoolState, ReplicaPhase, ReplicaState

Happening = Literal["ready", "ended", "drain", "quarantine"]

MOVES: dict[tuple[ReplicaPhase, Happening], ReplicaPhase] = {
    ("starting", "ready"): "ready",
    ("starting", "ended"): "failed",
    ("starting", "quarantine"): "quarantined",
    ("ready", "ended"): "failed",
    ("ready", "drain"): "draining",
    ("ready", "quarantine"): "quarantined",
    ("draining", "ended"): "failed",
    ("draining", "quarantine"): "quarantined",
    ("quarantined", "ended"): "quarantined",
    ("failed", "quarantine"): "quarantined",
}
"""Every move between phases; what is not in the table changes nothing."""

GPU_SLOTS = 8


@dataclass(frozen=True)
class Replica:
    """One serving process.

    `since` is when the phase began, `out_since` when the gateway stopped routing to it. `served` tells whether it was ever
    ready; `in_flight` is None while unknown. `gpu` is its slot on the replayed node.
    """

    name: str
    version: int
    phase: ReplicaPhase = "starting"
    since: float = 0.0
    in_traffic: bool = False
    out_since: float | None = None
    alive: bool = True
    served: bool = False
    error: str | None = None
    gpu: int | None = None
    in_flight: float | None = None

    def after(self, happening: Happening, now: float, error: str | None = None) -> Replica:
        """This replica after something happened to it at unix time `now`."""
        phase = MOVES.get((self.phase, happening), self.phase)
        return replace(
            self,
            phase=phase,
            since=self.since if phase == self.phase else now,
            alive=self.alive and happening != "ended",
            served=self.served or (happening == "ready" and self.phase == "starting"),
            error=self.error or error,
        )


@dataclass(frozen=True)
class HostState:
    """All replicas of a fleet. `numbers` holds the last number used per version: a name is never given twice."""

    fleet: str
    replicas: Mapping[str, Replica] = field(default_factory=dict)
    numbers: Mapping[int, int] = field(default_factory=dict)
    roles: Mapping[int, PoolRole] = field(default_factory=dict)

    def with_replica(self, replica: Replica) -> HostState:
        """The state with this replica added or replaced."""
        return replace(self, replicas={**self.replicas, replica.name: replica})

    def without(self, name: str) -> HostState:
        """The state without the replica of this name."""
        return replace(self, replicas={key: value for key, value in self.replicas.items() if key != name})

    def with_new(self, version: int, now: float) -> tuple[HostState, Replica]:
        """The state with one more replica of `version`, named and with the lowest free GPU slot."""
        number = self.numbers.get(version, 0) + 1
        slots = set(range(GPU_SLOTS)) - {each.gpu for each in self.replicas.values()}
        new = Replica(f"{self.fleet}-v{version}-{number}", version, since=now, gpu=min(slots, default=None))
        return replace(self.with_replica(new), numbers={**self.numbers, version: number}), new


def fleet_state(state: HostState, plan: FleetPlan | None, now: float) -> FleetState:
    """The contract's view: a pool per planned version, and per version that still has replicas (wanted 0, weight 0)."""
    planned = {pool.version: pool for pool in plan.pools} if plan else {}
    pools: list[PoolState] = []
    for version in sorted({*planned, *(replica.version for replica in state.replicas.values())}):
        replicas = [
            ReplicaState(
                name=each.name,
                version=version,
                phase=each.phase,
                since=each.since,
                in_traffic=each.in_traffic,
                error=each.error,
            )
            for each in state.replicas.values()
            if each.version == version
        ]
        pool = planned.get(version)
        pools.append(
            PoolState(
                version=version,
                role=pool.role if pool else state.roles.get(version, "previous"),
                weight=pool.weight if pool else 0,
                wanted=pool.replicas if pool else 0,
                replicas=replicas,
            )
        )
    return FleetState(fleet=state.fleet, time=now, pools=pools)

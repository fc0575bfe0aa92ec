"""What to do next so that a fleet becomes what the plan says. Pure: state, plan and time in, actions out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedded.host.state import HostState, Replica
from trimtab.errors import TrimtabError
from trimtab.messages import FleetPlan, PoolRole

DRAIN_LEAST_SECONDS = 1.0
"""A drained replica runs at least this long after it left the gateway, which may still be sending what it had chosen."""
DRAIN_MOST_SECONDS = 10.0
"""After this long a replica is stopped even with requests in flight: they have timed out for their clients anyway."""
QUARANTINED_MOST = 2
"""Quarantined processes kept as evidence; the oldest ones beyond are stopped, since each holds a model in memory."""


class InvalidPlan(TrimtabError):
    """A plan that cannot be meant; nothing of it was applied."""


@dataclass(frozen=True)
class Start:
    """Start one more replica of `version`."""

    version: int


@dataclass(frozen=True)
class Drain:
    """Take the replica out of traffic and let it finish what it has."""

    name: str


@dataclass(frozen=True)
class Quarantine:
    """Take the replica out of traffic at once; its process stays for whoever looks for the cause."""

    name: str


@dataclass(frozen=True)
class Stop:
    """End the process and forget the replica."""

    name: str


@dataclass(frozen=True)
class GatewayPool:
    """A version at the gateway: its weight in percent and the names of the replicas that it sends to."""

    version: int
    role: PoolRole
    weight: int
    listed: tuple[str, ...] = ()


Action = Start | Drain | Quarantine | Stop


def check_plan(plan: FleetPlan, fleet: str, most_replicas: int) -> None:
    """Raises `InvalidPlan` in words."""
    versions = [pool.version for pool in plan.pools]
    if plan.fleet != fleet:
        raise InvalidPlan(f"The plan is for fleet '{plan.fleet}', this is fleet '{fleet}'.")
    if not plan.pools:
        raise InvalidPlan("The plan has no pools.")
    if repeated := {version for version in versions if versions.count(version) > 1}:
        raise InvalidPlan(f"Version {min(repeated)} is in two pools.")
    for pool in plan.pools:
        if pool.version < 1:
            raise InvalidPlan(f"Version {pool.version} is not a version: they start at 1.")
        if pool.replicas < 0:
            raise InvalidPlan(f"Version {pool.version} cannot have {pool.replicas} replicas.")
        if not 0 <= pool.weight <= 100:
            raise InvalidPlan(f"The weight {pool.weight} of version {pool.version} is not between 0 and 100.")
        if pool.weight and not pool.replicas:
            raise InvalidPlan(f"Version {pool.version} is to get {pool.weight} % of the traffic with no replica.")
    if sum(pool.role == "stable" for pool in plan.pools) > 1:
        raise InvalidPlan("Two pools are stable.")
    if (weights := sum(pool.weight for pool in plan.pools)) != 100:
        raise InvalidPlan(f"The weights add up to {weights}, not to 100.")
    if (total := sum(pool.replicas for pool in plan.pools)) > most_replicas:
        raise InvalidPlan(f"{total} replicas are more than the {most_replicas} that this host may run.")


def reconcile(state: HostState, plan: FleetPlan, now: float) -> list[Action]:
    """The actions that bring `state` nearer to `plan`; none when there is nothing to do now.

    A replica that failed by itself keeps its place (no new one is started for it) until the plan quarantines it: whether
    to replace it is the autoscaler's to decide.
    """
    wanted = {pool.version: pool.replicas for pool in plan.pools}
    actions: list[Action] = []
    counted: dict[int, list[Replica]] = {version: [] for version in wanted}
    for replica in state.replicas.values():
        if replica.name in plan.quarantined and replica.phase != "quarantined" and replica.version in wanted:
            actions.append(Quarantine(replica.name))
        elif replica.phase == "draining":
            if _drained(replica, now):
                actions.append(Stop(replica.name))
        elif replica.phase == "quarantined":
            if (replica.name not in plan.quarantined or replica.version not in wanted) and not replica.in_traffic:
                actions.append(Stop(replica.name))
        elif replica.version not in wanted:
            actions.append(_leave(replica))
        else:
            counted[replica.version].append(replica)
    actions += [Stop(replica.name) for replica in _too_many_quarantined(state, plan)]
    for version, replicas in counted.items():
        excess = len(replicas) - wanted[version]
        actions += [_leave(replica) for replica in sorted(replicas, key=_leaves_first)[: max(0, excess)]]
        actions += [Start(version)] * -min(0, excess)
    return actions


def routed(state: HostState, plan: FleetPlan) -> list[GatewayPool]:
    """What the gateway should do: which replicas are listed, and each version's weight.

    Ready replicas are listed. Only when none of them could serve, those that are on their way out but still had traffic
    keep it until a replacement is ready: a sick replica serves more than none.
    """
    pools = {pool.version: (pool.role, pool.weight) for pool in plan.pools}
    listed = [each for each in state.replicas.values() if each.phase == "ready" and each.version in pools]
    if not any(pools[replica.version][1] or pools[replica.version][0] != "canary" for replica in listed):
        listed += [
            each
            for each in state.replicas.values()
            if each.in_traffic and each.alive and each.phase in ("quarantined", "draining")
        ]
    for replica in listed:
        pools.setdefault(replica.version, ("previous", 0))
    return [
        GatewayPool(version, role, weight, tuple(each.name for each in listed if each.version == version))
        for version, (role, weight) in pools.items()
    ]


def in_traffic(pools: Sequence[GatewayPool]) -> set[str]:
    """Names of the replicas that get requests: those of pools with weight, or if these are empty, what they fall back to."""
    weighted = {name for pool in pools if pool.weight for name in pool.listed}
    return weighted or {name for pool in pools if pool.role != "canary" for name in pool.listed}


def _leave(replica: Replica) -> Action:
    return Drain(replica.name) if replica.phase == "ready" else Stop(replica.name)


def _leaves_first(replica: Replica) -> tuple[int, float]:
    order = {"failed": 0, "starting": 1, "ready": 2}
    return order[replica.phase], -replica.since


def _drained(replica: Replica, now: float) -> bool:
    if replica.in_traffic or replica.out_since is None:
        return False
    out = now - replica.out_since
    return out >= DRAIN_MOST_SECONDS or (out >= DRAIN_LEAST_SECONDS and replica.in_flight == 0)


def _too_many_quarantined(state: HostState, plan: FleetPlan) -> list[Replica]:
    kept = [each for each in state.replicas.values() if each.phase == "quarantined" and each.name in plan.quarantined]
    oldest_first = sorted((each for each in kept if not each.in_traffic), key=lambda each: each.since)
    return oldest_first[: max(0, len(kept) - QUARANTINED_MOST)]

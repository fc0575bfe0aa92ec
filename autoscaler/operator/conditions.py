"""The conditions of a ModelFleet: what is so, a CamelCase reason, and words without numbers that move by themselves. Pure."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from autoscaler.actuators.kubernetes_conflict import Conflict
from autoscaler.actuators.kubernetes_read import Problem
from autoscaler.memory import PolicyMemory
from autoscaler.operator.fleet import Fleet
from autoscaler.operator.meaning import Meaning
from autoscaler.rollout import Phase
from trimtab.messages import FleetState

Json = dict[str, Any]
Truth = Literal["True", "False", "Unknown"]

_PHASES = {
    Phase.STARTING: ("CanaryStarting", "version {candidate} starts beside version {stable}"),
    Phase.CANARY: ("CanaryOnTrial", "version {candidate} is compared with version {stable}"),
    Phase.GUARD: ("Guarding", "version {stable} was promoted; version {previous} stays warm"),
}


class Seen(NamedTuple):
    """Everything that a status is made from. `state` is None while the fleet cannot be observed."""

    fleet: Fleet
    memory: PolicyMemory
    state: FleetState | None
    meaning: Meaning | None
    problems: list[Problem]
    conflict: Conflict | None
    gateways_ready: int | None
    now: float


class Condition(NamedTuple):
    """One condition before it gets its times."""

    type: str
    status: Truth
    reason: str
    message: str


def conditions(seen: Seen) -> list[Condition]:
    """All conditions, in the order in which people read them."""
    return [_ready(seen), _progressing(seen), _degraded(seen), _paused(seen), _frozen(seen), _scaling(seen), _telemetry(seen)]


def stamped(found: list[Condition], old: list[Json], generation: int, time: str) -> list[Json]:
    """As the API wants them: the transition's time stays while the status does."""
    before = {str(each.get("type")): each for each in old}
    stamps = []
    for each in found:
        was = before.get(each.type, {})
        moved = was.get("status") != each.status
        stamps.append(
            {
                "type": each.type,
                "status": each.status,
                "reason": each.reason,
                "message": each.message,
                "observedGeneration": generation,
                "lastTransitionTime": time if moved else was.get("lastTransitionTime", time),
            }
        )
    return stamps


def _ready(seen: Seen) -> Condition:
    if seen.state is None:
        return Condition("Ready", "Unknown", "NotObserved", "the fleet cannot be observed")
    stable = next((pool for pool in seen.state.pools if pool.role == "stable" and pool.wanted), None)
    if stable is None:
        return Condition("Ready", "False", "NotStarted", "no version serves yet")
    ready = sum(replica.phase == "ready" for replica in stable.replicas)
    if seen.gateways_ready == 0:
        return Condition("Ready", "False", "GatewayMissing", "no pod of the gateway is ready")
    if ready == 0:
        return Condition("Ready", "False", "NoReplicaReady", f"no replica of version {stable.version} is ready")
    if ready < min(stable.wanted, seen.fleet.spec.replicas.min):
        return Condition("Ready", "False", "ReplicasMissing", "fewer replicas are ready than replicas.min asks for")
    return Condition("Ready", "True", "Serving", f"version {stable.version} serves")


def _progressing(seen: Seen) -> Condition:
    rollout = seen.memory.rollout
    if rollout.phase in _PHASES:
        reason, words = _PHASES[rollout.phase]
        return Condition(
            "Progressing",
            "True",
            reason,
            words.format(candidate=rollout.candidate, stable=rollout.stable, previous=rollout.previous),
        )
    pools = seen.state.pools if seen.state else []
    if any(sum(each.phase == "ready" for each in pool.replicas) != pool.wanted for pool in pools if pool.wanted):
        return Condition("Progressing", "True", "Scaling", "replicas start or drain")
    refused = rollout.rolled_back.get(seen.fleet.spec.version)
    if refused is not None and seen.memory.spec is not None and refused >= seen.memory.spec.time:
        words = f"version {seen.fleet.spec.version} was rolled back; version {rollout.stable} serves"
        return Condition("Progressing", "False", "RolledBack", words)
    return Condition("Progressing", "False", "Settled", "replicas and weights are as planned")


def _degraded(seen: Seen) -> Condition:
    if seen.problems:
        first = seen.problems[0]
        more = f" (and {len(seen.problems) - 1} more: {', '.join(each.reason for each in seen.problems[1:])})"
        return Condition("Degraded", "True", first.reason, first.message + (more if len(seen.problems) > 1 else ""))
    out = [item.replica for item in seen.memory.quarantined]
    if out:
        return Condition("Degraded", "True", "ReplicaQuarantined", f"out of traffic: {', '.join(out)}")
    bad = [each for each in seen.memory.findings.values() if each.severity == "critical"]
    if bad:
        return Condition("Degraded", "True", _camel(bad[0].kind), bad[0].summary)
    return Condition("Degraded", "False", "AsExpected", "nothing is wrong that is known")


def _paused(seen: Seen) -> Condition:
    spec = seen.fleet.spec
    if seen.fleet.deleting:
        return Condition("Paused", "True", "Deleting", "the fleet drains and is removed")
    if spec.paused:
        return Condition("Paused", "True", "PausedByOwner", "nothing is done; what would be done is said")
    if spec.dry_run:
        return Condition("Paused", "True", "DryRun", "nothing is done; what would be done is said")
    return Condition("Paused", "False", "Running", "the fleet is looked after")


def _frozen(seen: Seen) -> Condition:
    if seen.meaning is None or seen.meaning.freeze is None:
        return Condition("Frozen", "False", "NoFreeze", "releases begin at once")
    if seen.meaning.waits is not None:
        return Condition(
            "Frozen", "True", "ReleaseWaits", f"version {seen.meaning.waits} waits for the end of '{seen.meaning.freeze}'"
        )
    return Condition("Frozen", "True", "Freeze", f"no release begins in '{seen.meaning.freeze}'; quarantine and scaling go on")


def _scaling(seen: Seen) -> Condition:
    conflict = seen.conflict
    if conflict is None:
        return Condition("ScalingConflict", "False", "OneOwner", "nobody else scales the fleet's Deployments")
    words = (
        f"{conflict.manager} set version {conflict.version} to {conflict.found} replicas, planned are {conflict.planned}: "
        "remove the other autoscaler, or set replicas.min and replicas.max of the ModelFleet"
    )
    return Condition("ScalingConflict", "True", "ForeignScaler", words)


def _telemetry(seen: Seen) -> Condition:
    if seen.memory.demand.seen is None:
        return Condition("TelemetryFresh", "Unknown", "NotSeenYet", "nothing was heard of the gateway yet")
    if seen.memory.blind_since is not None:
        return Condition(
            "TelemetryFresh",
            "False",
            "TelemetryMissing",
            "the gateway is not seen: nothing is scaled down or rolled back on this",
        )
    return Condition("TelemetryFresh", "True", "Fresh", "the gateway is seen")


def _camel(word: str) -> str:
    return "".join(part.capitalize() for part in word.split("_"))

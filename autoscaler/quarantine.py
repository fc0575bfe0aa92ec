"""Which replicas are taken out of traffic, which may go, and when it is not the replicas that are sick."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from autoscaler.collect import still_there
from autoscaler.evaluate import View
from autoscaler.memory import Inputs, PolicyMemory, Quarantined
from autoscaler.rollout import Phase
from autoscaler.saying import Draft
from autoscaler.settings import AutoscaleSettings
from autoscaler.watch import bad_replica
from trimtab.messages import PoolState, stable_id


class Sick(NamedTuple):
    """A replica that should not serve: which, why in words, and the id of the cause."""

    replica: str
    version: int
    cause: str
    reason: str
    confidence: float


def quarantine(memory: PolicyMemory, inputs: Inputs, view: View, settings: AutoscaleSettings) -> tuple[PolicyMemory, list[Draft]]:
    """Takes sick replicas out within the budget, and lets those go whose finding has resolved for long enough."""
    memory, drafts = _release(memory, inputs, view, settings)
    start = view.now - settings.quarantine_window_seconds
    memory = msgspec.structs.replace(memory, quarantine_times=[time for time in memory.quarantine_times if time > start])
    for pool in view.state.pools:
        sick = _sick(memory, view, pool, settings)
        if not sick or pool.wanted == 0:
            continue
        out = [
            item
            for item in memory.quarantined
            if item.version == pool.version and view.now - item.since < settings.together_seconds
        ]
        limit = max(1, int(settings.quarantine_share * pool.wanted))
        spent = len(memory.quarantine_times)
        if len(sick) + len(out) > limit:
            drafts += [
                _refuse(item, f"not a replica fault: {_together(sick, out)}, more than {limit} at a time", view) for item in sick
            ]
        elif spent + len(sick) > settings.quarantines_per_window:
            words = f"the budget is spent: {spent} quarantines in the last {settings.quarantine_window_seconds:.0f} s"
            if not settings.quarantines_per_window:
                words = "the owner has switched quarantine off"
            drafts += [_refuse(item, words, view) for item in sick]
        else:
            memory = _take_out(memory, sick, view.now)
            drafts += [_act(item, limit, spent, settings) for item in sick]
    return memory, drafts


def _sick(memory: PolicyMemory, view: View, pool: PoolState, settings: AutoscaleSettings) -> list[Sick]:
    rollout = memory.rollout
    if pool.version == rollout.candidate and rollout.phase is not Phase.GUARD and view.ready(pool.version) <= 1:
        return []  # the rollout answers for a canary's only replica
    already = {item.replica for item in memory.quarantined}
    replicas = {replica.name: replica for replica in pool.replicas if replica.phase not in ("draining", "quarantined")}
    sick: dict[str, Sick] = {}
    for finding in memory.findings.values():
        if bad_replica(finding, settings) and finding.target in replicas and finding.target not in already:
            words = f"{finding.kind} (confidence {finding.confidence:.2f}): {finding.summary}"
            sick.setdefault(finding.target, Sick(finding.target, pool.version, finding.id, words, finding.confidence))
    for name, replica in replicas.items():
        if replica.phase == "failed" and name not in already and pool.version != rollout.candidate:
            cause = stable_id(view.state.fleet, "failed", name)
            words = f"the replica failed{f': {replica.error}' if replica.error else ''}"
            sick.setdefault(name, Sick(name, pool.version, cause, words, 1.0))
    return list(sick.values())


def _take_out(memory: PolicyMemory, sick: list[Sick], now: float) -> PolicyMemory:
    return msgspec.structs.replace(
        memory,
        quarantined=[*memory.quarantined, *(Quarantined(item.replica, item.version, item.cause, now) for item in sick)],
        quarantine_times=[*memory.quarantine_times, *([now] * len(sick))],
    )


def _act(item: Sick, limit: int, spent: int, settings: AutoscaleSettings) -> Draft:
    return Draft(
        action="quarantine",
        cause=("quarantine", item.cause, item.replica),
        version=item.version,
        target=item.replica,
        from_={"in_traffic": True},
        to={"in_traffic": False},
        because=[item.cause],
        guard={"confidence": item.confidence, "at_a_time": limit, "budget_left": settings.quarantines_per_window - spent - 1},
        reason=f"{item.reason}; {item.replica} gets no more traffic and is replaced",
    )


def _refuse(item: Sick, why: str, view: View) -> Draft:
    return Draft(
        action="hold",
        cause=("hold", "quarantine", item.cause, item.replica),
        version=item.version,
        target=item.replica,
        because=[item.cause],
        reason=f"{item.replica} is not quarantined ({item.reason}): {why}",
    )


def _together(sick: list[Sick], out: list[Quarantined]) -> str:
    names = sorted({item.replica for item in sick} | {item.replica for item in out})
    return f"{len(names)} look sick together ({', '.join(names)})"


def _release(memory: PolicyMemory, inputs: Inputs, view: View, settings: AutoscaleSettings) -> tuple[PolicyMemory, list[Draft]]:
    kept, drafts = [], []
    planned = {memory.rollout.stable, memory.rollout.candidate, memory.rollout.previous}
    for item in still_there(memory, inputs):
        well = item.resolved_at is not None and view.now - item.resolved_at >= settings.release_after_seconds
        if not well or view.blind:
            kept.append(item)
            continue
        drafts.append(
            Draft(
                action="release",
                cause=("release", item.cause, item.replica),
                version=item.version,
                target=item.replica,
                because=[item.cause],
                reason=f"its finding resolved {settings.release_after_seconds:.0f} s ago; {item.replica} leaves quarantine",
            )
        )
    return msgspec.structs.replace(memory, quarantined=[item for item in kept if item.version in planned]), drafts

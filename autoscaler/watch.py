"""Which event a rollout meets now, by order of urgency; the table in rollout.py says what follows from it."""

from __future__ import annotations

from typing import NamedTuple

from autoscaler.evaluate import View
from autoscaler.memory import PolicyMemory
from autoscaler.rollout import Event, Phase, Rollout
from autoscaler.settings import AutoscaleSettings
from autoscaler.sizing import candidate_size
from trimtab.messages import Finding

_BAD_VERSION = ("version_regression", "quality_shift")
_BAD_REPLICA = ("replica_fault", "gpu_fault")


class Seen(NamedTuple):
    """An event, why in words and numbers, and the findings behind it."""

    event: Event
    reason: str
    because: list[str]
    guard: dict[str, object]


def next_event(memory: PolicyMemory, view: View, settings: AutoscaleSettings) -> Seen | None:
    """The most urgent event, or None when the rollout stays where it is."""
    rollout = memory.rollout
    looks = {
        Phase.IDLE: (_released,),
        Phase.STARTING: (_withdrawn, _superseded, _crashed, _faulty, _found, _late, _ready),
        Phase.CANARY: (_withdrawn, _superseded, _crashed, _faulty, _found, _harmed, _fine, _step),
        Phase.GUARD: (_withdrawn, _superseded, _found, _harmed, _guard_over),
    }
    for look in looks[rollout.phase]:
        if (seen := look(memory, rollout, view, settings)) is not None:
            return seen
    return None


def bad_version(finding: Finding, version: int | None, settings: AutoscaleSettings) -> bool:
    """Whether a finding condemns this version."""
    return finding.kind in _BAD_VERSION and finding.version == version and finding.confidence >= settings.rollback_confidence


def bad_replica(finding: Finding, settings: AutoscaleSettings) -> bool:
    """Whether a finding condemns one replica."""
    return finding.kind in _BAD_REPLICA and finding.target is not None and finding.confidence >= settings.quarantine_confidence


def _released(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    version = view.spec.version
    if rollout.stable is None or version == rollout.stable or rollout.rolled_back.get(version, -1.0) >= view.spec.time:
        return None
    return Seen(Event.RELEASED, f"version {version} was released", [f"release_time={view.spec.time:.3f}"], {})


def _withdrawn(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    back = rollout.previous if rollout.phase is Phase.GUARD else rollout.stable
    if view.spec.version != back:
        return None
    return Seen(Event.WITHDRAWN, f"the owner asks for version {back} again", [f"release_time={view.spec.time:.3f}"], {})


def _superseded(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    version = view.spec.version
    if version == rollout.judged or rollout.rolled_back.get(version, -1.0) >= view.spec.time:
        return None
    return Seen(Event.SUPERSEDED, f"version {version} was released", [f"release_time={view.spec.time:.3f}"], {})


def _crashed(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    pool = view.pool(rollout.candidate)
    failed = (
        [replica for replica in pool.replicas if replica.phase == "failed" and replica.since >= rollout.started] if pool else []
    )
    if not failed:
        return None
    first = failed[0]
    why = f": {first.error}" if first.error else ""
    return Seen(Event.CRASHED, f"replica {first.name} of version {first.version} failed{why}", [f"failed={first.name}"], {})


def _faulty(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    """A sick replica of the canary speaks against the version when no other replica of it could show the difference."""
    pool = view.pool(rollout.candidate)
    names = {replica.name for replica in pool.replicas} if pool else set()
    for finding in memory.findings.values():
        if bad_replica(finding, settings) and finding.target in names and view.ready(rollout.candidate) <= 1:
            reason = f"{finding.kind} on {finding.target}, the only replica of the canary: {finding.summary}"
            return Seen(Event.REPLICA_FAULT, reason, [finding.id], {"confidence": finding.confidence})
    return None


def _found(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    if view.blind:
        return None
    for finding in memory.findings.values():
        # Findings about an earlier try of the same version do not speak about this one.
        if bad_version(finding, rollout.judged, settings) and finding.onset >= rollout.started - 1.0:
            reason = f"{finding.kind} of version {finding.version} (confidence {finding.confidence:.2f}): {finding.summary}"
            return Seen(Event.FINDING, reason, [finding.id], {"confidence": finding.confidence})
    return None


def _harmed(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    if view.blind or view.verdict is None or view.verdict.kind != "harm":
        return None
    return Seen(Event.HARM, view.verdict.reason, [f"evidence={view.verdict.numbers['evidence']}"], dict(view.verdict.numbers))


def _late(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    waited = view.now - rollout.since
    ready = view.ready(rollout.candidate)
    enough = ready > 0 if view.need is None else ready >= _wanted(memory, view.need, settings)
    if waited <= settings.start_deadline_seconds or enough:
        return None
    return Seen(Event.LATE, f"version {rollout.candidate} was not ready after {waited:.0f} s", [f"waited={waited:.0f}"], {})


def _ready(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    if view.blind or view.need is None:
        return None
    ready, wanted = view.ready(rollout.candidate), _wanted(memory, view.need, settings)
    if ready < wanted:
        return None
    return Seen(Event.READY, f"{ready} replicas of version {rollout.candidate} are ready", [], {})


def _wanted(memory: PolicyMemory, need: int, settings: AutoscaleSettings) -> int:
    return candidate_size(memory.rollout, need, memory.size or need, settings)


def _step(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    """More traffic: enough time at this share, not blind, some answers seen, and replicas for the next share."""
    if view.blind or view.need is None or rollout.canary is None or rollout.step + 1 >= len(settings.canary_weights):
        return None
    answered = rollout.canary.streams["error"].canary_total
    enough = view.ready(rollout.candidate) >= _wanted(memory, view.need, settings)
    if _asked(rollout, view) and enough:
        return Seen(Event.STEP, f"the owner promotes version {rollout.candidate}", [], {})
    if view.now - rollout.since < settings.step_seconds or answered == 0 or not enough:
        return None
    return Seen(Event.STEP, f"no harm seen in {answered} requests", [], dict(view.verdict.numbers) if view.verdict else {})


def _fine(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    last = rollout.step + 1 >= len(settings.canary_weights)
    if _asked(rollout, view) and last and view.need is not None:
        if view.ready(rollout.candidate) < _wanted(memory, view.need, settings):
            return None
        return Seen(Event.FINE, f"the owner promotes version {rollout.candidate}", ["owner"], {})
    early = view.now - rollout.since < settings.step_seconds
    if view.blind or view.need is None or view.verdict is None or view.verdict.kind != "fine" or not last or early:
        return None
    if view.ready(rollout.candidate) < _wanted(memory, view.need, settings):
        return None
    return Seen(Event.FINE, view.verdict.reason, [], dict(view.verdict.numbers))


def _asked(rollout: Rollout, view: View) -> bool:
    """Whether the owner promotes the version on trial: only its replicas are waited for."""
    return rollout.candidate is not None and view.spec.promote == rollout.candidate and not view.blind


def _guard_over(memory: PolicyMemory, rollout: Rollout, view: View, settings: AutoscaleSettings) -> Seen | None:
    # Blind, the guard goes on: it ends on what was seen, not on what was not.
    if view.blind or view.now - rollout.since < settings.guard_seconds:
        return None
    numbers: dict[str, object] = dict(view.verdict.numbers) if view.verdict else {}
    return Seen(Event.GUARD_OVER, f"no harm seen in the {settings.guard_seconds:.0f} s after the promotion", [], numbers)

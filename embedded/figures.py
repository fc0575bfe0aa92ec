"""The figures of a run: flat numbers by name, None where the run says nothing about them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedded import timeline
from embedded.events import Event, EventKind, Release
from embedded.recording import Recording, Request, direction
from embedded.scenario import Scenario
from trimtab.messages import Decision, FleetState


def figures(
    scenario: Scenario, recording: Recording, requests: Sequence[Request] | None, peak_memory_bytes: int | None
) -> dict[str, float | None]:
    """All figures. Seconds from cause to decision (`..._effective_s`: until seen in effect) are the worst over the events.

    `rollback_s` counts from the first bad response of the faulty version that a client received, `scale_up_s` from the
    start of the surge, `quarantine_s` from the fault, `promote_s` from the release.
    """
    scaled = _waits(scenario, recording, "surge", _scale_up)
    quarantined = _waits(scenario, recording, "replica_fault", _quarantine)
    rolled = _waits(scenario, recording, "release", lambda recording, span: _rollback(recording, span, requests))
    promoted = _waits(scenario, recording, "release", _promotion)
    served = _within_run(requests, recording.zero)
    judged = [r for r in served or [] if r.outcome != "error"]
    return {
        "rollback_s": _worst(rolled, 0),
        "rollback_effective_s": _worst(rolled, 1),
        "scale_up_s": _worst(scaled, 0),
        "scale_up_effective_s": _worst(scaled, 1),
        "quarantine_s": _worst(quarantined, 0),
        "quarantine_effective_s": _worst(quarantined, 1),
        "promote_s": _worst(promoted, 0),
        "client_error_ratio": client_error_ratio(requests, recording.zero),
        "client_p50_s": percentile_of(requests, recording.zero, 0.5),
        "client_p99_s": percentile_of(requests, recording.zero, 0.99),
        "requests": float(len(served)) if served is not None else None,
        "accuracy": sum(r.outcome == "ok" for r in judged) / len(judged) if judged else None,
        "decisions": float(len({d.id for d in recording.decisions})),
        "findings": float(len({f.id for f in recording.findings})),
        "peak_memory_bytes": float(peak_memory_bytes) if peak_memory_bytes is not None else None,
    }


def client_error_ratio(requests: Sequence[Request] | None, zero: float | None) -> float | None:
    """The share of client requests from scenario time zero on that failed; None when there were none or they are lost."""
    served = _within_run(requests, zero)
    return sum(r.outcome == "error" for r in served) / len(served) if served else None


def percentile_of(requests: Sequence[Request] | None, zero: float | None, share: float) -> float | None:
    """A percentile of client latency in seconds, over answered requests from scenario time zero on (nearest rank)."""
    latencies = sorted(r.latency for r in _within_run(requests, zero) or [] if r.outcome != "error")
    return latencies[math.ceil(share * len(latencies)) - 1] if latencies else None


def first_bad(requests: Sequence[Request], release: Release, since: float) -> float | None:
    """When a client received the first response that shows the fault of a released version; None when none did.

    Any error or retry of a request that was sent to it is bad. Of its answers, those of a slow version are bad that took
    at least `by`, and those of a wrong version that are wrong. A leak shows in no response until it ends in errors.
    """
    fault = release.fault
    if fault is None:
        return None

    def bad(request: Request) -> bool:
        if request.outcome == "error" or request.attempts > 1:
            return release.version in (request.assigned, request.version)
        if request.version != release.version:
            return False
        return (fault.kind == "slow" and request.latency >= (fault.by or 0.0)) or (
            fault.kind == "wrong" and request.outcome == "wrong"
        )

    return min((r.time + r.latency for r in requests if r.time >= since and bad(r)), default=None)


@dataclass(frozen=True)
class _Span:
    """An event, when it really happened, and when the next of its kind did."""

    event: Event
    start: float
    end: float


Wait = tuple[float | None, float | None]
"""Seconds to the decision, and until it was seen in effect."""


def _waits(
    scenario: Scenario, recording: Recording, kind: EventKind, one: Callable[[Recording, _Span], Wait | None]
) -> list[Wait]:
    found = timeline.concerned(scenario, kind)
    at = [recording.begun(i, event.at) for i, event in found]
    spans = [_Span(event, start, end) for (_, event), start, end in zip(found, at, [*at[1:], math.inf], strict=False)]
    return [wait for span in spans if (wait := one(recording, span)) is not None]


def _worst(waits: list[Wait], which: int) -> float | None:
    numbers = [value for wait in waits if (value := wait[which]) is not None]
    return max(numbers) if numbers and len(numbers) == len(waits) else None


def _within_run(requests: Sequence[Request] | None, zero: float | None) -> list[Request] | None:
    return None if requests is None or zero is None else [r for r in requests if r.time >= zero]


def _first(recording: Recording, span: _Span, fits: Callable[[Decision], bool]) -> Decision | None:
    applied = (d for d in recording.decisions if d.outcome == "applied" and not d.dry_run)
    return min((d for d in applied if span.start <= d.time < span.end and fits(d)), key=lambda d: d.time, default=None)


def _seen(recording: Recording, since: float, fits: Callable[[FleetState], bool]) -> float | None:
    return min((s.time for s in recording.states if s.time >= since and fits(s)), default=None)


def _wait(start: float | None, decision: Decision | None, effective: float | None) -> Wait:
    if start is None or decision is None:
        return None, None
    return max(decision.time - start, 0.0), max(effective - start, 0.0) if effective is not None else None


def _scale_up(recording: Recording, span: _Span) -> Wait | None:
    if span.event.surge is None or span.event.surge.factor <= 1:
        return None
    decision = _first(recording, span, lambda d: d.action == "scale" and direction(d) == "up")
    wanted = decision.to.get("replicas") if decision else None
    seen = None
    if decision and isinstance(wanted, int | float):
        seen = _seen(recording, decision.time, lambda state: _serving(state) >= wanted)
    return _wait(span.start, decision, seen)


def _serving(state: FleetState) -> int:
    return sum(r.phase == "ready" and r.in_traffic for pool in state.pools if pool.role != "previous" for r in pool.replicas)


def _quarantine(recording: Recording, span: _Span) -> Wait:
    decision = _first(recording, span, lambda d: d.action == "quarantine")
    if decision is None:
        return None, None
    return _wait(span.start, decision, _seen(recording, decision.time, lambda state: not _routed(state, decision.target)))


def _routed(state: FleetState, target: str | None) -> bool:
    return any(r.in_traffic for pool in state.pools for r in pool.replicas if r.name == target)


def _rollback(recording: Recording, span: _Span, requests: Sequence[Request] | None) -> Wait | None:
    release = span.event.release
    if release is None or release.fault is None:
        return None
    decision = _first(recording, span, lambda d: d.action == "rollback" and d.version == release.version)
    bad = first_bad(requests, release, span.start) if requests is not None else None
    gone = _seen(recording, decision.time, lambda state: _weight(state, release.version) == 0) if decision else None
    return _wait(bad, decision, gone)


def _weight(state: FleetState, version: int) -> int:
    return sum(pool.weight for pool in state.pools if pool.version == version)


def _promotion(recording: Recording, span: _Span) -> Wait | None:
    release = span.event.release
    if release is None or release.fault is not None:
        return None
    return _wait(span.start, _first(recording, span, lambda d: d.action == "promote" and d.version == release.version), None)

"""Judges a run: each expectation of the scenario held or missed, with what was measured, and the figures. Pure.

Times are measured from when an event really happened (the player notes it), not from when it was planned. Only decisions
that were applied count; a refused scale-down is not a scale-down. `hold` counts however it is worded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from embedded import timeline
from embedded.expectations import (
    ClientErrorsExpected,
    DecisionExpected,
    Expectation,
    FindingExpected,
    NeverExpected,
    P99Expected,
    ReplicasExpected,
)
from embedded.figures import client_error_ratio, percentile_of
from embedded.recording import Recording, Request, direction
from embedded.scenario import Scenario
from trimtab.messages import Decision, Finding


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One expectation in words, whether it held, what was measured in words, and the time or number behind it."""

    expectation: str
    held: bool
    measured: str
    value: float | None = None


def judge(scenario: Scenario, recording: Recording, requests: Sequence[Request] | None) -> list[Verdict]:
    """The verdict on each expectation, in the order of the scenario; `requests` are the client's, None when they are lost."""
    return [_verdict(scenario, recording, requests, expected) for expected in scenario.expect]


def _verdict(scenario: Scenario, recording: Recording, requests: Sequence[Request] | None, expected: Expectation) -> Verdict:
    match expected:
        case DecisionExpected():
            return _each(expected, scenario, recording, [d.time for d in _decided(recording, scenario) if _is(d, expected)])
        case FindingExpected():
            # A finding counts when it arises: one that only goes on is no answer to what happens meanwhile.
            fired: dict[str, float] = {}
            for finding in sorted(recording.findings, key=lambda f: f.time):
                if finding.state == "firing" and _found(finding, expected):
                    fired.setdefault(finding.id, finding.time)
            return _each(expected, scenario, recording, list(fired.values()))
        case NeverExpected():
            return _never(expected, scenario, recording)
        case ClientErrorsExpected():
            ratio = client_error_ratio(requests, recording.zero)
            return _at_most(expected, ratio, expected.client_errors.at_most, lambda x: f"{x:.2%} of requests failed")
        case P99Expected():
            p99 = percentile_of(requests, recording.zero, 0.99)
            return _at_most(expected, p99, expected.p99.at_most, lambda x: f"p99 was {x * 1000:.0f} ms")
        case ReplicasExpected():
            return _replicas(expected, scenario, recording)


def words(expected: Expectation) -> str:
    """An expectation as a short sentence."""
    match expected:
        case DecisionExpected() | FindingExpected():
            what = (
                expected.decision.replace("_", " ")
                if isinstance(expected, DecisionExpected)
                else f"finding: {_plain(expected.finding)}"
            )
            direction = getattr(expected, "direction", None)
            return (
                what
                + (f" {direction}" if direction else "")
                + (f" version {expected.version}" if expected.version is not None else "")
                + (f" within {expected.within:g} s" if expected.within else "")
                + (f" of the {_plain(expected.of)}" if expected.of else "")
            )
        case NeverExpected():
            return (
                f"never {_plain(expected.never)}"
                + (f" {expected.direction}" if expected.direction else "")
                + (f" version {expected.version}" if expected.version is not None else "")
                + (f" during the {_plain(expected.during)}" if expected.during else "")
                + (f" after the {_plain(expected.after)}" if expected.after else "")
            )
        case ClientErrorsExpected():
            return f"at most {expected.client_errors.at_most:.2%} of client requests fail"
        case P99Expected():
            return f"client p99 at most {expected.p99.at_most * 1000:g} ms"
        case ReplicasExpected():
            during = f" during the {_plain(expected.replicas.during)}" if expected.replicas.during else ""
            return f"never scaled beyond {expected.replicas.at_most} replicas{during}"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _decided(recording: Recording, scenario: Scenario) -> list[Decision]:
    """Decisions that count, once each, from scenario time zero on, in order of time."""
    first: dict[str, Decision] = {}
    for decision in sorted(recording.decisions, key=lambda d: d.time):
        counts = decision.action == "hold" or (decision.outcome == "applied" and not decision.dry_run)
        if counts and recording.zero is not None and decision.time >= recording.zero:
            first.setdefault(decision.id, decision)
    return list(first.values())


def _is(decision: Decision, expected: DecisionExpected | NeverExpected) -> bool:
    action = expected.decision if isinstance(expected, DecisionExpected) else expected.never
    return (
        decision.action == action
        and (expected.direction is None or direction(decision) == expected.direction)
        and (expected.version is None or decision.version == expected.version)
    )


def _found(finding: Finding, expected: FindingExpected) -> bool:
    return finding.kind == expected.finding and (expected.version is None or finding.version == expected.version)


def _each(
    expected: DecisionExpected | FindingExpected, scenario: Scenario, recording: Recording, times: Sequence[float]
) -> Verdict:
    zero = recording.zero or 0.0
    if expected.of is None:
        starts = [("the start", zero, float("inf"))]
    else:
        found = timeline.concerned(scenario, expected.of, expected.version)
        at = [recording.begun(i, scenario.events[i].at) for i, _ in found]
        ends = [*at[1:], float("inf")]
        starts = [(f"the {timeline.named(e)} at {e.at:g} s", s, end) for (_, e), s, end in zip(found, at, ends, strict=True)]
    waits: list[float] = []
    for name, start, end in starts:
        later = [t for t in times if start <= t < end]
        if not later:
            return Verdict(expectation=words(expected), held=False, measured=f"did not come after {name}")
        waits.append(min(later) - start)
        if expected.within is not None and waits[-1] > expected.within:
            late = f"came {waits[-1]:.1f} s after {name}, too late"
            return Verdict(expectation=words(expected), held=False, measured=late, value=waits[-1])
    after = f"{waits[0]:.1f} s" if len(waits) == 1 else f"at most {max(waits):.1f} s ({len(waits)} times)"
    measured = f"came after {after}" if expected.of else f"came at {waits[0]:.1f} s"
    return Verdict(expectation=words(expected), held=True, measured=measured, value=max(waits))


def _windows(scenario: Scenario, recording: Recording, during: str | None, after: str | None) -> list[tuple[float, float]]:
    kind = during or after
    if kind is None:
        return [(float("-inf"), float("inf"))]
    found = [(recording.begun(i, scenario.events[i].at), event) for i, event in timeline.concerned(scenario, kind, None)]
    return [(start, start + event.lasts if during else float("inf")) for start, event in found]


def _never(expected: NeverExpected, scenario: Scenario, recording: Recording) -> Verdict:
    windows = _windows(scenario, recording, expected.during, expected.after)
    against = [d for d in _decided(recording, scenario) if _is(d, expected) and any(a <= d.time <= b for a, b in windows)]
    if not against:
        return Verdict(expectation=words(expected), held=True, measured="it never was")
    first = against[0]
    at = recording.at(first.time)
    measured = f"{len(against)} time(s), first at {at:.1f} s: {first.reason}"
    return Verdict(expectation=words(expected), held=False, measured=measured, value=at)


def _at_most(expected: Expectation, value: float | None, limit: float, say: Callable[[float], str]) -> Verdict:
    if value is None:
        return Verdict(expectation=words(expected), held=False, measured="unknown: the client's requests were not recorded")
    return Verdict(expectation=words(expected), held=value <= limit, measured=say(value), value=value)


def _replicas(expected: ReplicasExpected, scenario: Scenario, recording: Recording) -> Verdict:
    windows = _windows(scenario, recording, expected.replicas.during, None)
    asked = [
        (int(wanted), decision)
        for decision in _decided(recording, scenario)
        if decision.action == "scale" and isinstance(wanted := decision.to.get("replicas"), int | float)
        if any(a <= decision.time <= b for a, b in windows)
    ]
    most, _ = max(asked, key=lambda pair: pair[0], default=(scenario.fleet.replicas.min, None))
    held = most <= expected.replicas.at_most
    return Verdict(expectation=words(expected), held=held, measured=f"at most {most} were asked for", value=float(most))

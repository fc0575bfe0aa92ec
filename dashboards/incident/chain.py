"""The causal chain of an incident: scrape -> score -> finding -> decision -> outcome, as numbered steps. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from dashboards.notify import subjects, words
from trimtab.messages import Decision, Finding, FleetState, Score, Snapshot

Lane = Literal["scrape", "score", "finding", "decision", "outcome"]
Tone = Literal["plain", "found", "done", "refused", "bad"]
LANES: tuple[Lane, ...] = ("scrape", "score", "finding", "decision", "outcome")

_BEFORE_ONSET = 30.0
"""How long before the onset a score may have been the first sign, in seconds."""


@dataclass(frozen=True)
class Step:
    """One thing that happened; `causes` are the numbers of the steps that led to it."""

    time: float
    lane: Lane
    tone: Tone
    what: str
    details: tuple[str, ...] = ()
    until: float | None = None
    causes: tuple[int, ...] = ()
    number: int = 0
    key: str = ""
    because: tuple[str, ...] = ()


def steps(
    findings: Sequence[Finding],
    decisions: Sequence[Decision],
    states: Sequence[FleetState],
    scores: Sequence[Score],
    snapshots: Sequence[Snapshot],
) -> list[Step]:
    """All steps in order of time, numbered from 1."""
    found: list[Step] = []
    for id in dict.fromkeys(finding.id for finding in findings):
        found += _of_finding([finding for finding in findings if finding.id == id], scores, snapshots)
    for decision in decisions:
        measured = list(_measured(decision, snapshots))
        found += [*measured, *_of_decision(decision, states, measured)]
    ordered = sorted(found, key=lambda step: (step.time, LANES.index(step.lane)))
    numbers = {step.key: number for number, step in enumerate(ordered, 1)}
    return [
        replace(step, number=number, causes=tuple(numbers[key] for key in step.because if key in numbers))
        for number, step in enumerate(ordered, 1)
    ]


def _of_finding(said: Sequence[Finding], scores: Sequence[Score], snapshots: Sequence[Snapshot]) -> Iterator[Step]:
    firing = [finding for finding in said if finding.state == "firing"]
    if not firing:
        return
    first, id = firing[0], firing[0].id
    over = next((finding for finding in said if finding.state == "resolved"), None)
    failed = [s for s in snapshots if s.target == first.target and not s.up and first.onset - 1 <= s.time <= said[-1].time]
    details = tuple(f"{s.target}: {s.error}" for s in failed[:1]) + (
        (f"{len(failed)} failed scrapes",) if len(failed) > 1 else ()
    )
    yield Step(first.onset, "scrape", "plain", "the first scrapes that show it", details, key=f"scrape/{id}")
    if first.evidence:
        at, lines = _scored(first, scores)
        yield Step(at, "score", "plain", "detectors see it", lines, key=f"score/{id}", because=(f"scrape/{id}",))
    name = words.kind_words(first.kind) + (f" on {first.target}" if first.target else "")
    yield Step(
        first.time, "finding", "found", f"{name} ({first.severity}, confidence {first.confidence:.2f})", (first.summary,),
        until=said[-1].time, key=f"finding/{id}", because=(f"score/{id}", f"scrape/{id}"),
    )  # fmt: skip
    if over is not None:
        yield Step(over.time, "outcome", "done", f"{name} is over", key=f"over/{id}", because=(f"finding/{id}",))


def _scored(finding: Finding, scores: Sequence[Score]) -> tuple[float, tuple[str, ...]]:
    """When the first score over its threshold came (or the finding, when scores are not recorded), and the detectors' words."""
    early = finding.onset - _BEFORE_ONSET
    times = [
        score.time
        for evidence in finding.evidence
        for score in scores
        if score.detector == evidence.detector
        and finding.target in (None, score.target)
        and early <= score.time <= finding.time
        and score.score >= (evidence.threshold if evidence.threshold is not None else 2.0)
    ]
    lines = [
        e.detector
        + (f" {e.score:.4g}" if e.score is not None else "")
        + (f" (threshold {e.threshold:.4g})" if e.threshold else "")
        for e in finding.evidence
    ]
    return min(times, default=finding.time), tuple(dict.fromkeys(lines))


def _measured(decision: Decision, snapshots: Sequence[Snapshot]) -> Iterator[Step]:
    """What a decision read off the gateway itself: demand, or the comparison of versions side by side."""
    numbers = _numbers(decision)
    evidence, needed = decision.guard.get("evidence"), decision.guard.get("evidence_needed")
    compared = isinstance(evidence, int | float) and isinstance(needed, int | float)
    pages = [each.time for each in snapshots if each.role == "gateway" and each.up and each.time <= decision.time]
    if not pages or not (numbers or compared):
        return
    yield Step(pages[-1], "scrape", "plain", "the gateway's counters", tuple(numbers), key=f"read/{decision.id}")
    if compared:
        text = f"the versions compared side by side: evidence of harm {evidence:.3g}, a rollback needs {needed:.3g}"
        led = (f"read/{decision.id}",)
        yield Step(decision.time, "score", "plain", text, key=f"compared/{decision.id}", because=led)


def _numbers(decision: Decision) -> list[str]:
    """The measured reasons; a moment (of a release, of the last sign of life) is no measurement."""
    return [
        cause for cause in decision.because if "=" in cause and cause.partition("=")[0] not in ("release_time", "gateway_seen")
    ]


def _of_decision(decision: Decision, states: Sequence[FleetState], measured: Sequence[Step]) -> Iterator[Step]:
    because = (*(f"finding/{id}" for id in subjects.cited(decision)), f"compared/{decision.id}", f"read/{decision.id}")
    text, _, reason = words.decision_words(decision).partition(". ")
    tone: Tone = {"applied": "done", "refused": "refused", "failed": "bad"}[decision.outcome]  # type: ignore[assignment]
    given = [] if measured else _numbers(decision)
    details = (reason, *((f"because {', '.join(given)}",) if given else ()))
    yield Step(decision.time, "decision", tone, text, details, key=f"decision/{decision.id}", because=because)
    if decision.outcome == "applied" and not decision.dry_run:
        seen = next((state for state in states if state.time >= decision.time and _is_so(decision, state)), None)
        led = (f"decision/{decision.id}",)
        if seen is not None:
            yield Step(seen.time, "outcome", "done", f"observed: {_observed(decision)}", key=f"seen/{decision.id}", because=led)
        elif states:
            at = decision.time + decision.took
            yield Step(
                at, "outcome", "plain", f"accepted; not observed: {_observed(decision)}", key=f"seen/{decision.id}", because=led
            )


def _is_so(decision: Decision, state: FleetState) -> bool:
    """Whether what a decision wanted is what runs."""
    replicas = {replica.name: replica for pool in state.pools for replica in pool.replicas}
    if decision.action == "quarantine":
        return decision.target not in replicas or not replicas[decision.target].in_traffic
    if decision.action == "release":
        return decision.target in replicas and replicas[decision.target].in_traffic
    weights = decision.to.get("weights")
    if isinstance(weights, dict):
        return {str(pool.version): pool.weight for pool in state.pools if pool.weight} == {k: v for k, v in weights.items() if v}
    wanted = decision.to.get("replicas")
    ready = sum(r.phase == "ready" and r.version == decision.version for r in replicas.values())
    return isinstance(wanted, int | float) and ready == wanted


def _observed(decision: Decision) -> str:
    if decision.action == "quarantine":
        return f"{decision.target} gets no traffic"
    if decision.action == "release":
        return f"{decision.target} gets traffic again"
    weights = decision.to.get("weights")
    if isinstance(weights, dict):
        return "traffic " + ", ".join(f"{weight} % to version {version}" for version, weight in weights.items())
    return f"{words.values(decision.to)} ready"

"""The findings and decisions of a run as numbered marks: one per onset or cause, in order of time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from embedded.recording import Recording, decision_words, finding_words
from trimtab.messages import Decision, Evidence, Finding

MarkKind = Literal["finding", "decision", "refused"]


@dataclass(frozen=True)
class Mark:
    """One flag: its number, scenario time, what happened in a sentence, and the lines that explain it."""

    number: int
    at: float
    kind: MarkKind
    what: str
    why: list[str] = field(default_factory=list)


def marks(recording: Recording, zero: float) -> list[Mark]:
    """All marks. A finding that fires again under the same id, or a decision that is repeated, is one mark."""
    firing: dict[str, Finding] = {}
    resolved: dict[str, float] = {}
    for finding in recording.findings:
        if finding.state == "firing":
            firing.setdefault(finding.id, finding)
        else:
            resolved.setdefault(finding.id, finding.time - zero)
    decisions: dict[str, Decision] = {}
    for decision in recording.decisions:
        decisions.setdefault(decision.id, decision)
    ordered: list[Finding | Decision] = [*firing.values(), *decisions.values()]
    ordered.sort(key=lambda one: (one.time, isinstance(one, Decision)))
    numbers = {one.id: number for number, one in enumerate(ordered, 1)}
    return [
        _finding(numbers[one.id], one, zero, resolved.get(one.id))
        if isinstance(one, Finding)
        else _decision(numbers[one.id], one, zero, numbers)
        for one in ordered
    ]


def _finding(number: int, finding: Finding, zero: float, resolved: float | None) -> Mark:
    why = [f"onset at {finding.onset - zero:.1f} s, {finding.severity}, confidence {finding.confidence:.2f}"]
    why += [_evidence(evidence) for evidence in finding.evidence]
    if resolved is not None:
        why.append(f"resolved at {resolved:.1f} s")
    return Mark(number, finding.time - zero, "finding", finding_words(finding), why)


def _evidence(evidence: Evidence) -> str:
    parts = [f"{evidence.detector}: {evidence.series}"]
    for name in ("observed", "expected", "score", "threshold"):
        value = getattr(evidence, name)
        if value is not None:
            parts.append(f"{name} {value:.4g}")
    if evidence.window is not None:
        parts.append(f"over {evidence.window:g} s")
    return ", ".join(parts)


def _decision(number: int, decision: Decision, zero: float, numbers: dict[str, int]) -> Mark:
    why = []
    if decision.because:
        why.append("because of " + ", ".join(f"mark {numbers[b]}" if b in numbers else b for b in decision.because))
    if decision.guard:
        why.append("guard: " + ", ".join(f"{name} {value}" for name, value in decision.guard.items()))
    if decision.outcome == "applied" and decision.took:
        why.append(f"took {decision.took:.2f} s")
    kind: MarkKind = "decision" if decision.outcome == "applied" and decision.action != "hold" else "refused"
    return Mark(number, decision.time - zero, kind, decision_words(decision), why)

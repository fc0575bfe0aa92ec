"""What a finding or decision is about, and how much it matters: tables, no state."""

from __future__ import annotations

from typing import NamedTuple

from trimtab.messages import Action, Cause, Decision, Finding, FindingKind, Severity

RANK: dict[Severity, int] = {"info": 0, "warning": 1, "critical": 2}

CAUSES: dict[FindingKind, Cause] = {
    "demand_shift": "demand",
    "saturation": "demand",
    "version_regression": "version",
    "quality_shift": "version",
    "replica_fault": "replica",
    "gpu_fault": "replica",
    "dependency_fault": "dependency",
    "telemetry_gap": "telemetry",
}

# What an act is about when no finding is named in it. A hold is about what it names.
_ACTED_ON: dict[Action, Cause] = {
    "scale": "demand",
    "shift_traffic": "version",
    "promote": "version",
    "rollback": "version",
    "quarantine": "replica",
    "release": "replica",
}

# What a hold is about when it names neither a finding nor a version nor a replica, but a number that it was read from.
_MEASURED: dict[str, Cause] = {"gateway_seen": "telemetry", "arrivals_per_second": "demand"}


class Subject(NamedTuple):
    """The kind of cause, and which one of a fleet it is, such as ``("version", "3")``. The name is empty when there is one."""

    cause: Cause
    name: str


def of_finding(finding: Finding) -> Subject:
    """What a finding is about."""
    return _named(CAUSES[finding.kind], finding.target, finding.version)


def of_decision(decision: Decision) -> Subject:
    """What a decision is about, as far as it says so itself."""
    cause = _ACTED_ON.get(decision.action)
    if cause is None:
        measured = (_MEASURED[name] for given in decision.because if (name := given.partition("=")[0]) in _MEASURED)
        about: Cause = next(measured, "fleet")
        cause = "replica" if decision.target else "version" if decision.version is not None else about
    return _named(cause, decision.target, decision.version)


def _named(cause: Cause, target: str | None, version: int | None) -> Subject:
    if cause == "version":
        return Subject("version", str(version)) if version is not None else Subject("fleet", "")
    if cause == "replica":
        return Subject("replica", target) if target else Subject("fleet", "")
    if cause == "telemetry":
        return Subject("telemetry", target or "")
    return Subject(cause, "")


def severity_of(decision: Decision) -> Severity:
    """A cure that was not possible is worse than one that was; what belongs to normal life is information."""
    cure = decision.action in ("rollback", "quarantine")
    if decision.outcome == "failed":
        return "critical" if cure else "warning"
    return "warning" if cure and decision.outcome == "applied" else "info"


def worse(one: Severity, other: Severity) -> Severity:
    """The higher of two."""
    return one if RANK[one] >= RANK[other] else other


def cited(decision: Decision) -> list[str]:
    """The finding ids among a decision's reasons; demand numbers have the form ``name=value``."""
    return [cause for cause in decision.because if "=" not in cause]


def grows(decision: Decision) -> bool:
    """Whether a scale decision adds replicas."""
    before, after = decision.from_.get("replicas"), decision.to.get("replicas")
    numbers = isinstance(before, int | float) and isinstance(after, int | float)
    return decision.action == "scale" and numbers and after > before  # type: ignore[operator]

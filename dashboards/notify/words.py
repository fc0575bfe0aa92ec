"""Incidents, findings and decisions in words for people. Names of fleets and replicas go through untouched."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from trimtab.messages import Decision, Finding, Incident

_FIRST, _LAST = -62_135_596_800.0, 253_402_300_799.0
"""The years 1 to 9999 in unix seconds."""

_ABOUT = {
    "version": "version {name} of fleet {fleet}",
    "replica": "replica {name} of fleet {fleet}",
    "demand": "demand on fleet {fleet}",
    "telemetry": "telemetry of fleet {fleet}",
    "dependency": "a dependency of fleet {fleet}",
    "fleet": "fleet {fleet}",
}

_DONE = {
    "scale": "scaled",
    "shift_traffic": "shifted traffic",
    "promote": "promoted",
    "rollback": "rolled back",
    "quarantine": "quarantined",
    "release": "released from quarantine",
    "hold": "held",
}


def title(incident: Incident) -> str:
    """Which thread this is: the same for all its messages."""
    words = _ABOUT[incident.cause].format(name=incident.subject, fleet=incident.fleet)
    return f"{words}, target {incident.subject}" if incident.cause == "telemetry" and incident.subject else words


def finding_words(finding: Finding) -> str:
    """A finding in one line."""
    if finding.state == "resolved":
        return f"{kind_words(finding.kind)} is over. {finding.summary.removeprefix('over: ')}"
    return f"{kind_words(finding.kind)} ({finding.severity}, confidence {finding.confidence:.2f}). {finding.summary}"


def decision_words(decision: Decision) -> str:
    """A decision in one line: what became of it, from and to, and why."""
    whom = f" {decision.target}" if decision.target else f" version {decision.version}" if decision.version is not None else ""
    change = f" ({values(decision.from_)} → {values(decision.to)})" if set(decision.to) - {"in_traffic"} else ""
    done = _DONE[decision.action]
    if decision.action == "hold":
        return f"no act. {decision.reason}"
    if decision.outcome == "applied":
        return f"{'dry run, would have ' if decision.dry_run else ''}{done}{whom}{change}. {decision.reason}"
    return f"{decision.action.replace('_', ' ')}{whom}{change} {decision.outcome}. {decision.reason}"


def kind_words(kind: str) -> str:
    """``version_regression`` as ``version regression``."""
    return kind.replace("_", " ")


def values(numbers: Mapping[str, object]) -> str:
    """``{"weights": {"1": 80, "2": 20}}`` as ``weights 1:80 2:20``."""
    said = (f"{name} {_value(value)}" for name, value in numbers.items())
    return ", ".join(said) or "nothing"


def _value(value: object) -> str:
    return " ".join(f"{k}:{v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def duration(seconds: float) -> str:
    """Seconds as people say them: ``42 s``, ``5 min``, ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def moment(time: float) -> datetime:
    """Unix seconds as a date in UTC; what no calendar holds is its first or last moment, for a clock may say anything."""
    return datetime.fromtimestamp(min(max(time, _FIRST), _LAST), UTC)

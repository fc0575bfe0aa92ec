"""One incident as a story, from recorded messages: the chain on one time axis, the evidence, and what was refused. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dashboards.incident import chain
from dashboards.incident.chain import Step
from dashboards.incident.curves import Curve, curves
from dashboards.notify import template
from dashboards.notify.incidents import Incidents
from dashboards.notify.settings import IncidentSettings
from dashboards.notify.subjects import RANK
from dashboards.notify.words import title
from trimtab.bus import Record
from trimtab.errors import Missing
from trimtab.messages import Decision, Evidence, Finding, FleetState, Incident, IncidentUpdate, Message, Score, Snapshot

_MARGIN_SHARE, _MARGIN_LEAST = 0.12, 6.0
"""How much is shown before and after what happened: a share of it, and at least so many seconds."""


_AROUND_SECONDS = 120.0
"""Records are written a little after what they tell of, and the margins want to be filled."""


@dataclass
class Archive:
    """All that was recorded of the fleets, and the incidents in it, oldest first."""

    messages: list[Message] = field(default_factory=list)
    incidents: list[list[IncidentUpdate]] = field(default_factory=list)


@dataclass(frozen=True)
class Shown:
    """Evidence of a finding when it first fired, beside what the same series showed when it was last said."""

    finding: Finding
    evidence: Evidence
    last: Evidence | None


@dataclass(frozen=True)
class Story:
    """What the page and the terminal show. Times are unix seconds; `start` to `end` is the window of all plots."""

    incident: Incident
    title: str
    summary: str
    updates: Sequence[IncidentUpdate]
    steps: Sequence[Step]
    evidence: Sequence[Shown]
    decisions: Sequence[Decision]
    refused: Sequence[tuple[Decision, bool]]
    """Refusals of the fleet in the window, and whether each belongs to this incident."""
    curves: Sequence[Curve]
    start: float
    end: float
    link: str | None


def archive(records: Iterable[Record], settings: IncidentSettings, fleet: str | None) -> Archive:
    """Groups findings and decisions, of one fleet or of all; other records are kept as they are."""
    grouping, found = Incidents(settings), Archive()
    threads: dict[str, list[IncidentUpdate]] = {}
    for record in records:
        message = record.message
        if fleet is not None and getattr(message, "fleet", fleet) != fleet:
            continue
        found.messages.append(message)
        for update in grouping.add(message):
            threads.setdefault(update.incident.id, []).append(update)
    found.incidents = sorted(threads.values(), key=lambda updates: updates[-1].incident.opened)
    return found


def window(updates: Sequence[IncidentUpdate]) -> tuple[float, float]:
    """The unix times between which more should be read to tell the story of an incident."""
    return updates[0].incident.opened - _AROUND_SECONDS, updates[-1].time + _AROUND_SECONDS


def find(archive: Archive, which: str) -> list[IncidentUpdate]:
    """The incident that `which` names: its id or the beginning of it, the id of a finding or decision, or ``latest``."""
    if not archive.incidents:
        raise Missing("no incident is recorded here")
    if which == "latest":
        serious = [updates for updates in archive.incidents if RANK[updates[-1].incident.severity] > 0]
        return (serious or archive.incidents)[-1]
    found = [
        updates
        for updates in archive.incidents
        if updates[-1].incident.id.startswith(which) or which in updates[-1].incident.told
    ]
    if which and len(found) == 1:
        return found[0]
    if which and found:
        raise Missing(f"'{which}' is the beginning of {len(found)} incidents: say more of it")
    raise Missing(f"no incident '{which}' is recorded here; `trimtab incident list` shows all")


def tell(archive: Archive, updates: Sequence[IncidentUpdate], grafana_url: str | None) -> Story:
    """The story of one incident."""
    incident = updates[-1].incident
    mine = [message for message in archive.messages if getattr(message, "fleet", None) == incident.fleet]
    findings = [message for message in mine if isinstance(message, Finding) and message.id in incident.told]
    decisions = _last_said(message for message in mine if isinstance(message, Decision) and message.id in incident.told)
    states = [message for message in mine if isinstance(message, FleetState)]
    scores = [message for message in mine if isinstance(message, Score)]
    snapshots = [message for message in mine if isinstance(message, Snapshot)]
    steps = chain.steps(findings, decisions, states, scores, snapshots)
    said = [step.until for step in steps if step.until is not None]
    times = [*(step.time for step in steps), *said, incident.opened, updates[-1].time]
    margin = max(_MARGIN_LEAST, _MARGIN_SHARE * (max(times) - min(times)))
    start, end = min(times) - margin, max(times) + margin
    refused = [
        (decision, decision.id in incident.told)
        for decision in _last_said(message for message in mine if isinstance(message, Decision))
        if decision.outcome == "refused" and start <= decision.time <= end
    ]
    return Story(
        incident=incident,
        title=title(incident),
        summary=_summary(incident, findings, decisions),
        updates=updates,
        steps=steps,
        evidence=_evidence(findings),
        decisions=decisions,
        refused=refused,
        curves=curves(states, snapshots, start, end),
        start=start,
        end=end,
        link=template.link(grafana_url, incident),
    )


def _last_said(decisions: Iterable[Decision]) -> list[Decision]:
    """Each decision once: a failed act is said again when it succeeds, and the last one counts."""
    last: dict[str, Decision] = {}
    for decision in decisions:
        last[decision.id] = decision
    return sorted(last.values(), key=lambda decision: decision.time)


def _evidence(findings: Sequence[Finding]) -> list[Shown]:
    firing = [finding for finding in findings if finding.state == "firing"]
    first = {finding.id: finding for finding in reversed(firing)}
    last = {finding.id: finding for finding in firing}
    return [
        Shown(finding, evidence, _same(last[finding.id], evidence) if last[finding.id] is not finding else None)
        for finding in sorted(first.values(), key=lambda finding: finding.time)
        for evidence in finding.evidence
    ]


def _same(finding: Finding, evidence: Evidence) -> Evidence | None:
    same = (each for each in finding.evidence if (each.detector, each.series) == (evidence.detector, evidence.series))
    return next(same, None)


def _summary(incident: Incident, findings: Sequence[Finding], decisions: Sequence[Decision]) -> str:
    firing = [finding for finding in findings if finding.state == "firing"]
    # What the worst finding said first is why it was one; without a finding, the acts speak.
    if firing:
        return max(firing, key=lambda finding: RANK[finding.severity]).summary
    telling = [decision for decision in decisions if decision.action in ("rollback", "quarantine", "promote")] or list(decisions)
    return telling[-1].reason if telling else f"{incident.updates} updates"

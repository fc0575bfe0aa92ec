"""From findings and decisions to incidents: one cause, one thread. Pure: messages and times in, updates out.

A message belongs to the incident that knows its id or an id that it names, or else to the open one of the same subject, or
to one of the same subject that ended a moment ago (a fault that flaps is one fault; a second surge is a second cause). What
was said already is not said again, so feeding the same records twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from dashboards.notify import subjects, words
from dashboards.notify.settings import IncidentSettings
from trimtab.messages import Decision, Finding, Happening, Incident, IncidentUpdate, Message, stable_id

_TOLD_KEPT = 200
"""Ids that an incident remembers; more would make each update as long as the history."""

_HAPPENING: dict[str, Happening] = {"applied": "act", "refused": "refusal", "failed": "failure"}


class Incidents:
    """All incidents that are open or ended lately. Times are those of the messages; `tick` says how late it is."""

    def __init__(self, settings: IncidentSettings) -> None:
        self._settings = settings
        self._known: dict[str, Incident] = {}
        self._heard: dict[str, float] = {}

    def restore(self, updates: Iterable[IncidentUpdate], now: float) -> None:
        """Takes up what was published before: the newest update of an incident holds all there is to know.

        When its findings were last repeated is not published: that counts from `now` on.
        """
        for update in updates:
            known = self._known.get(update.incident.id)
            if known is None or known.updates <= update.incident.updates:
                self._keep(update.incident)
        self._heard = {id: max(heard, now) for id, heard in self._heard.items()}

    def open(self) -> list[Incident]:
        """The incidents that are not over."""
        return [incident for incident in self._known.values() if incident.state == "firing"]

    def add(self, message: Message, now: float = float("inf")) -> list[IncidentUpdate]:
        """One message; returns what people should hear, what time brought up to it first.

        With `now`, a message from the future does not make it later: a wrong clock would end what others began.
        """
        if isinstance(message, Finding):
            return [*self.tick(min(message.time, now)), *self._finding(message)]
        if isinstance(message, Decision):
            return [*self.tick(min(message.time, now)), *self._decision(message)]
        return []

    def tick(self, now: float) -> list[IncidentUpdate]:
        """It is `now`: incidents that ended by themselves, and reminders of those that go on."""
        found = [update for incident in self.open() if (update := self._passed(incident, now))]
        for incident in list(self._known.values()):
            if incident.state == "resolved" and now - incident.updated > self._settings.remember_seconds:
                del self._known[incident.id], self._heard[incident.id]
        return found

    def _passed(self, incident: Incident, now: float) -> IncidentUpdate | None:
        limits = self._settings
        if not incident.firing:
            end = incident.updated + limits.settle_seconds
            text = f"nothing more happened for {words.duration(limits.settle_seconds)}"
            return self._end(incident, end, text) if now >= end else None
        end = self._heard[incident.id] + limits.stale_seconds
        if now >= end:
            text = f"not heard of for {words.duration(limits.stale_seconds)}; whether it is over is unknown"
            return self._end(incident, end, text)
        due = incident.updated + (now - incident.updated) // limits.reminder_seconds * limits.reminder_seconds
        if due > incident.updated:
            text = f"still firing, {words.duration(due - incident.opened)} after it began"
            return self._say(replace(incident, updated=due), "reminder", due, text)
        return None

    def _finding(self, finding: Finding) -> list[IncidentUpdate]:
        incident = self._by_id(finding.fleet, [finding.id]) or self._by_subject(finding)
        if incident is None:
            return [self._tell_finding(self._opened(finding), finding)] if finding.state == "firing" else []
        self._heard[incident.id] = max(self._heard[incident.id], finding.time)
        time, state = incident.told.get(finding.id, (float("-inf"), None))
        if finding.time <= time:
            return []
        if finding.state == "resolved":
            news = state == "firing"
        else:
            worse = subjects.RANK[finding.severity] > subjects.RANK[incident.severity]
            news = worse or finding.id not in incident.firing
        return [self._tell_finding(incident, finding)] if news else []

    def _tell_finding(self, incident: Incident, finding: Finding) -> IncidentUpdate:
        firing = [id for id in incident.firing if id != finding.id] + [finding.id] * (finding.state == "firing")
        subject = subjects.of_finding(finding)
        over = not firing
        incident = replace(
            incident,
            cause=incident.cause if incident.cause != "fleet" else subject.cause,
            subject=incident.subject if incident.cause != "fleet" else subject.name,
            opened=min(incident.opened, finding.onset),
            firing=firing,
            state="resolved" if over else "firing",
            resolved=finding.time if over else None,
            severity=subjects.worse(incident.severity, finding.severity),
            updated=max(incident.updated, finding.time),
            told=_told(incident, finding.id, finding.time, finding.state),
        )
        return self._say(incident, "resolved" if over else "finding", finding.time, words.finding_words(finding), finding)

    def _decision(self, decision: Decision) -> list[IncidentUpdate]:
        incident = self._by_id(decision.fleet, [decision.id, *subjects.cited(decision)]) or self._by_subject(decision)
        if incident is None:
            return [self._tell_decision(self._opened(decision), decision)]
        time, outcome = incident.told.get(decision.id, (float("-inf"), None))
        # A failed act is said again under its old id and time when it succeeds.
        again = decision.time == time and (outcome, decision.outcome) == ("failed", "applied")
        news = decision.outcome != outcome and (decision.time > time or again)
        if not news:
            return []
        return [self._tell_decision(incident, decision)]

    def _tell_decision(self, incident: Incident, decision: Decision) -> IncidentUpdate:
        severity = subjects.severity_of(decision)
        # Something serious about what was over: it is not over. It ends again when nothing more happens.
        again = incident.state == "resolved" and severity != "info"
        incident = replace(
            incident,
            state="firing" if again else incident.state,
            resolved=None if again else incident.resolved,
            severity=subjects.worse(incident.severity, severity),
            updated=max(incident.updated, decision.time),
            cited=[*incident.cited, *(id for id in subjects.cited(decision) if id not in incident.cited)][-_TOLD_KEPT:],
            told=_told(incident, decision.id, decision.time, decision.outcome),
        )
        text = words.decision_words(decision)
        return self._say(incident, _HAPPENING[decision.outcome], decision.time, text, None, decision)

    def _end(self, incident: Incident, time: float, text: str) -> IncidentUpdate:
        return self._say(replace(incident, state="resolved", resolved=time, updated=time, firing=[]), "resolved", time, text)

    def _say(
        self,
        incident: Incident,
        happening: Happening,
        time: float,
        text: str,
        finding: Finding | None = None,
        decision: Decision | None = None,
    ) -> IncidentUpdate:
        incident = replace(incident, updates=incident.updates + 1)
        self._keep(incident)
        return IncidentUpdate(
            id=stable_id(incident.id, incident.updates, happening),
            fleet=incident.fleet,
            time=time,
            happening=happening,
            incident=incident,
            title=words.title(incident),
            text=text,
            finding=finding,
            decision=decision,
        )

    def _keep(self, incident: Incident) -> None:
        self._known[incident.id] = incident
        self._heard[incident.id] = max(self._heard.get(incident.id, 0.0), incident.updated)

    def _by_id(self, fleet: str, ids: list[str]) -> Incident | None:
        mine = [incident for incident in self._known.values() if incident.fleet == fleet]
        told = (incident for id in ids for incident in mine if id in incident.told)
        cited = (incident for id in ids for incident in mine if id in incident.cited)
        return next(told, None) or next(cited, None)

    def _by_subject(self, message: Finding | Decision) -> Incident | None:
        wanted = subjects.of_finding(message) if isinstance(message, Finding) else subjects.of_decision(message)
        same = [
            incident
            for incident in self._known.values()
            if (incident.fleet, incident.cause, incident.subject) == (message.fleet, *wanted)
        ]
        for incident in same:
            if incident.state == "firing":
                return incident
        if isinstance(message, Finding) and message.state == "resolved":
            return None
        # More demand is a new cause each time; that replicas go again is the end of the old one.
        if wanted.cause == "demand" and (isinstance(message, Finding) or subjects.grows(message)):
            return None
        lately = [i for i in same if i.resolved is not None and message.time - i.resolved <= self._settings.reopen_seconds]
        return max(lately, key=lambda incident: incident.updated, default=None)

    def _opened(self, message: Finding | Decision) -> Incident:
        said: str
        if isinstance(message, Finding):
            subject, severity, said = subjects.of_finding(message), message.severity, message.state
        else:
            subject, severity, said = subjects.of_decision(message), subjects.severity_of(message), message.outcome
        return Incident(
            id=stable_id(message.fleet, *subject, message.id, message.time, said),
            fleet=message.fleet,
            cause=subject.cause,
            subject=subject.name,
            state="firing",
            severity=severity,
            opened=message.onset if isinstance(message, Finding) else message.time,
            updated=message.time,
        )


def _told(incident: Incident, id: str, time: float, state: str) -> dict[str, tuple[float, str]]:
    told = {known: said for known, said in incident.told.items() if known != id} | {id: (time, state)}
    return dict(list(told.items())[-_TOLD_KEPT:])

"""How each format is spoken: from an update to the request for one receiver, and what is remembered between requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from dashboards.notify import formats, template
from dashboards.notify.delivery import Answer
from dashboards.notify.formats import Told
from dashboards.notify.settings import IncidentSettings, Receiver
from trimtab.messages import Delivery, Incident, IncidentUpdate

_JSON = "application/json; charset=utf-8"


@dataclass(frozen=True)
class Request:
    """A body to POST; `id` is the key by which the receiver knows that it is the same one again, None for mere re-sends."""

    body: bytes
    content_type: str
    id: str | None


class Voice(Protocol):
    """One receiver's format."""

    def restore(self, updates: Iterable[IncidentUpdate], deliveries: Iterable[Delivery]) -> None:
        """Takes up what this receiver was told before."""

    def request(self, update: IncidentUpdate, now: float) -> Request:
        """The request that tells of an update."""

    def delivered(self, update: IncidentUpdate, answer: Answer) -> str | None:
        """It was accepted; returns the receiver's name for the thread, if it has one."""

    def again(self, now: float) -> Request | None:
        """What is to be said again now although nothing happened."""


def voice_of(receiver: Receiver, settings: IncidentSettings) -> Voice:
    """The voice for a receiver's format."""
    if receiver.format == "slack":
        return _Slack(receiver, settings)
    return _Pushed(receiver, settings) if receiver.format == "alertmanager_api" else _Plain(receiver, settings)


def told(update: IncidentUpdate, receiver: Receiver, settings: IncidentSettings) -> Told:
    """The update with its text and link for a receiver. A template that fails now is told instead of the text."""
    link = template.link(settings.grafana_url, update.incident)
    text = update.text
    if receiver.template is not None:
        try:
            text = template.render(receiver.template, update, link)
        except ValueError as error:
            text = f"{update.text} ({error})"
    return Told(update, receiver.name, text, link)


class _Plain:
    def __init__(self, receiver: Receiver, settings: IncidentSettings) -> None:
        self._receiver, self._settings = receiver, settings

    def restore(self, updates: Iterable[IncidentUpdate], deliveries: Iterable[Delivery]) -> None:
        pass

    def request(self, update: IncidentUpdate, now: float) -> Request:
        payload = formats.PLAIN[self._receiver.format](told(update, self._receiver, self._settings))
        return _request(payload, update.id, formats.CONTENT_TYPES.get(self._receiver.format, _JSON))

    def delivered(self, update: IncidentUpdate, answer: Answer) -> str | None:
        return None

    def again(self, now: float) -> Request | None:
        return None


class _Slack(_Plain):
    """With a channel, the first message's `ts` is the thread that all later ones of the incident answer in."""

    def __init__(self, receiver: Receiver, settings: IncidentSettings) -> None:
        super().__init__(receiver, settings)
        self._threads: dict[str, str] = {}

    def restore(self, updates: Iterable[IncidentUpdate], deliveries: Iterable[Delivery]) -> None:
        self._threads |= {each.incident: each.thread for each in deliveries if each.thread}

    def request(self, update: IncidentUpdate, now: float) -> Request:
        payload = formats.slack(
            told(update, self._receiver, self._settings), self._receiver.channel, self._threads.get(update.incident.id)
        )
        return _request(payload, update.id)

    def delivered(self, update: IncidentUpdate, answer: Answer) -> str | None:
        name = (answer.body or {}).get("ts")
        if self._receiver.channel is None or not isinstance(name, str):
            return None
        return self._threads.setdefault(update.incident.id, name)


class _Pushed(_Plain):
    """Alertmanager's API takes states, not events: what fires is said again and again until it is over."""

    def __init__(self, receiver: Receiver, settings: IncidentSettings) -> None:
        super().__init__(receiver, settings)
        self._firing: dict[str, IncidentUpdate] = {}
        self._said_at = 0.0

    def restore(self, updates: Iterable[IncidentUpdate], deliveries: Iterable[Delivery]) -> None:
        for update in updates:
            self._note(update)

    def request(self, update: IncidentUpdate, now: float) -> Request:
        alerts = [self._alert(update, now)]
        before = self._firing.get(update.incident.id)
        if before is not None and formats.labels_of(before.incident) != formats.labels_of(update.incident):
            # Other labels are another alert to Alertmanager: the old one ends here.
            alerts.append(self._alert(before, now) | {"endsAt": formats.rfc3339(max(now, before.incident.opened))})
        return _request(alerts, update.id)

    def delivered(self, update: IncidentUpdate, answer: Answer) -> str | None:
        self._note(update)
        return None

    def again(self, now: float) -> Request | None:
        if not self._firing or now - self._said_at < self._receiver.resend_seconds:
            return None
        self._said_at = now
        return _request([self._alert(update, now) for update in self._firing.values()], None)

    def _alert(self, update: IncidentUpdate, now: float) -> dict[str, Any]:
        return formats.pushed_alert(told(update, self._receiver, self._settings), now, self._receiver.resend_seconds)

    def _note(self, update: IncidentUpdate) -> None:
        if update.incident.state == "firing":
            self._firing[update.incident.id] = update
        else:
            self._firing.pop(update.incident.id, None)


def wanted(receiver: Receiver, incident: Incident) -> bool:
    """Whether a receiver wants to hear of an incident."""
    from dashboards.notify.subjects import RANK

    of_its_own = not receiver.fleets or incident.fleet in receiver.fleets
    return of_its_own and RANK[incident.severity] >= RANK[receiver.min_severity]


def _request(payload: object, id: str | None, content_type: str = _JSON) -> Request:
    return Request(msgspec.json.encode(payload), content_type, id)

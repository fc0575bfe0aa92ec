"""Updates as the payloads that receivers know. Pure: an update in, plain values out; nothing is sent here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from dashboards.notify.words import moment
from trimtab.messages import Cause, Incident, IncidentUpdate, Severity

NEVER = "0001-01-01T00:00:00Z"
"""What Alertmanager says for an alert that has not ended."""

ALERT_NAMES: dict[Cause, str] = {
    "version": "TrimtabVersion",
    "replica": "TrimtabReplica",
    "demand": "TrimtabDemand",
    "telemetry": "TrimtabTelemetry",
    "dependency": "TrimtabDependency",
    "fleet": "TrimtabFleet",
}

_COLOURS: dict[Severity, str] = {"info": "#2f6fde", "warning": "#b7791f", "critical": "#c62f3b"}
_OVER = "#12805c"
_SLACK_LONGEST = 2900
"""Slack refuses a section of more than 3000 characters."""

_ENDS_AFTER = 4
"""A pushed alert ends by itself when it is not sent again for so many intervals, as Prometheus's do."""


@dataclass(frozen=True)
class Told:
    """An update, ready for one receiver: its name, the text (the user's template, or ours) and the link, if there is one."""

    update: IncidentUpdate
    receiver: str
    text: str
    link: str | None = None


def alertmanager(told: Told) -> dict[str, Any]:
    """Alertmanager's webhook, version 4: one group with one alert, the incident."""
    incident = told.update.incident
    labels, notes = labels_of(incident), notes_of(told)
    group = {"alertname": labels["alertname"], "fleet": incident.fleet, "incident": incident.id}
    return {
        "version": "4",
        "groupKey": f"{{}}:{{{', '.join(f'{name}={_quoted(value)}' for name, value in group.items())}}}",
        "truncatedAlerts": 0,
        "status": incident.state,
        "receiver": told.receiver,
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": notes,
        "externalURL": told.link or "",
        "alerts": [
            {
                "status": incident.state,
                "labels": labels,
                "annotations": notes,
                "startsAt": rfc3339(incident.opened),
                "endsAt": NEVER if incident.resolved is None else rfc3339(incident.resolved),
                "generatorURL": told.link or "",
                "fingerprint": incident.id,
            }
        ],
    }


def pushed_alert(told: Told, now: float, resend_seconds: float) -> dict[str, Any]:
    """One element of what `POST /api/v2/alerts` takes. It ends by itself when the notifier falls silent."""
    incident = told.update.incident
    ends = incident.resolved if incident.resolved is not None else now + _ENDS_AFTER * resend_seconds
    alert = {
        "labels": labels_of(incident),
        "annotations": notes_of(told),
        "startsAt": rfc3339(incident.opened),
        # Alertmanager refuses an end before the start
        "endsAt": rfc3339(max(ends, incident.opened)),
    }
    return alert | ({"generatorURL": told.link} if told.link else {})


def labels_of(incident: Incident) -> dict[str, str]:
    """The labels that identify an incident as an alert; severity is one of them, because routes go by it."""
    labels = {
        "alertname": ALERT_NAMES[incident.cause],
        "fleet": incident.fleet,
        "incident": incident.id,
        "severity": incident.severity,
    }
    if incident.subject:
        labels["version" if incident.cause == "version" else "target"] = incident.subject
    return labels


def notes_of(told: Told) -> dict[str, str]:
    """What a person reads of an alert."""
    return {"summary": told.update.title, "description": told.text} | ({"dashboard": told.link} if told.link else {})


def cloudevent(told: Told) -> dict[str, Any]:
    """CloudEvents 1.0 in structured mode; `subject` is the incident, so it is the key of the thread."""
    update = told.update
    return {
        "specversion": "1.0",
        "id": update.id,
        "source": f"/trimtab/fleets/{quote(update.fleet, safe='')}",
        "type": f"io.trimtab.incident.{update.happening}",
        "subject": update.incident.id,
        "time": rfc3339(update.time),
        "datacontenttype": "application/json",
        "data": {
            "title": update.title,
            "text": told.text,
            "link": told.link,
            "incident": {k: v for k, v in msgspec.to_builtins(update.incident).items() if k not in ("told", "cited")},
            "finding": msgspec.to_builtins(update.finding),
            "decision": msgspec.to_builtins(update.decision),
        },
    }


def slack(told: Told, channel: str | None, thread: str | None) -> dict[str, Any]:
    """Slack: an incoming webhook's body, or chat.postMessage's with `channel` and the `thread` that it answers in."""
    update, incident = told.update, told.update.incident
    over = incident.state == "resolved"
    text = told.text if len(told.text) <= _SLACK_LONGEST else told.text[: _SLACK_LONGEST - 1] + "…"
    state = "resolved" if over else f"{incident.severity}, firing"
    context = f"{state} · {update.happening} {incident.updates} of incident {incident.id}"
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "plain_text", "text": text, "emoji": False}},
        {"type": "context", "elements": [{"type": "plain_text", "text": context, "emoji": False}]},
    ]
    if told.link:
        button = {"type": "button", "text": {"type": "plain_text", "text": "Dashboard"}, "url": told.link}
        blocks.append({"type": "actions", "elements": [button]})
    body: dict[str, Any] = {
        # The fallback is mrkdwn: its three control characters are escaped, so that no name becomes a mention or a link.
        "text": f"{'✅ ' if over else ''}{_escaped(update.title)}",
        "attachments": [{"color": _OVER if over else _COLOURS[incident.severity], "fallback": update.title, "blocks": blocks}],
    }
    body |= {"channel": channel} if channel else {}
    return body | ({"thread_ts": thread} if thread else {})


CONTENT_TYPES = {"cloudevents": "application/cloudevents+json; charset=utf-8"}

PLAIN: dict[str, Callable[[Told], dict[str, Any]]] = {"alertmanager": alertmanager, "cloudevents": cloudevent}
"""The formats that need nothing but the update."""


def rfc3339(time: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the millisecond."""
    return moment(time).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

"""Decisions from Kubernetes Events and, where Kafka is given, from the topic; one line per decision, the last word counts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from autoscaler.kubectl.fleets import moment
from trimtab.codec import decode_as
from trimtab.errors import Undecodable
from trimtab.kube import Object
from trimtab.messages import Decision, Message

DECISION = "trimtab.dev/decision"
_REASON = re.compile(r"^([A-Z][A-Za-z]*?)(Applied|Refused|Failed)$")
_ACTIONS = {"Scale", "ShiftTraffic", "Promote", "Rollback", "Quarantine", "Release", "Hold"}


def from_events(events: Iterable[Object]) -> list[Decision]:
    """The decisions that Events tell of; other Events are left out. An Event without the whole decision gives what it says."""
    found = []
    for event in events:
        text = (event["metadata"].get("annotations") or {}).get(DECISION)
        try:
            decision = decode_as(Decision, text.encode()) if text else _told(event)
        except Undecodable:
            decision = _told(event)
        if decision is not None:
            found.append(decision)
    return found


def merged(*sources: Iterable[Message]) -> list[Decision]:
    """All decisions once, newest first; of one that was said twice the later word."""
    newest: dict[str, Decision] = {}
    for source in sources:
        for message in source:
            if isinstance(message, Decision):
                known = newest.get(message.id)
                if known is None or message.time >= known.time:
                    newest[message.id] = message
    return sorted(newest.values(), key=lambda decision: decision.time, reverse=True)


def about(decisions: Iterable[Decision], *, pod: str | None = None, version: int | None = None) -> list[Decision]:
    """The decisions about one replica or one version."""
    return [each for each in decisions if (pod and each.target == pod) or (version is not None and concerns(each, version))]


def concerns(decision: Decision, version: int) -> bool:
    """Whether a decision is about a version: it names it, or moves its traffic."""
    if decision.version == version:
        return True
    return any(
        str(version) in weights for change in (decision.from_, decision.to) if isinstance(weights := change.get("weights"), dict)
    )


def _told(event: Object) -> Decision | None:
    match = _REASON.match(str(event.get("reason", "")))
    if match is None or match[1] not in _ACTIONS:
        return None
    time = (
        moment(event.get("eventTime")) or moment(event.get("lastTimestamp")) or moment(event["metadata"].get("creationTimestamp"))
    )
    about = event.get("involvedObject") or {}
    return Decision(
        id=str(event["metadata"].get("uid") or event["metadata"]["name"]),
        fleet=f"{about.get('namespace', '')}_{about.get('name', '')}",
        time=time or 0.0,
        action=re.sub(r"(?<!^)(?=[A-Z])", "_", match[1]).lower(),  # type: ignore[arg-type]
        outcome=match[2].lower(),  # type: ignore[arg-type]
        reason=str(event.get("message", "")),
    )

"""Writes a fleet's status where it has changed, and says an Event when a condition turns."""

from __future__ import annotations

import logging
from typing import Any

from autoscaler.operator.conditions import Seen
from autoscaler.operator.events import of_condition
from autoscaler.operator.fleet import Fleet
from autoscaler.operator.status import changed, last_decision, stamp, status
from autoscaler.operator.tools import Tools
from trimtab.errors import Unavailable
from trimtab.kube import KubeError
from trimtab.messages import Decision

log = logging.getLogger(__name__)


def show(tools: Tools, seen: Seen, said: Decision | None) -> None:
    """How the fleet stands; `said` is its last decision. Raises `Unavailable` or `KubeError` when it cannot be written."""
    fleet, wanted = seen.fleet, status(seen)
    if said is not None:
        wanted["lastDecision"] = last_decision(said)
    changes = changed(wanted, fleet.status)
    if not changes:
        return
    tools.actuator.status.write(fleet.namespace, fleet.name, changes)
    _tell_turns(tools, fleet, fleet.status.get("conditions", []), wanted["conditions"], seen.now)


def say_invalid(tools: Tools, fleet: str, words: str) -> None:
    """Says of a fleet that its spec cannot be meant."""
    namespace, _, name = fleet.partition("_")
    thing = tools.cache.fleets.get(namespace, name)
    if thing is None:
        return
    old = thing.get("status", {}).get("conditions", [])
    kept = [each for each in old if each.get("type") not in ("Ready", "Degraded")]
    generation = int(thing["metadata"].get("generation", 0))
    bad = [
        {"type": "Degraded", "status": "True", "reason": "InvalidSpec", "message": words},
        *(each for each in old if each.get("type") == "Ready"),
    ]
    for each in bad:
        was: dict[str, Any] = next(
            (one for one in old if one.get("type") == each["type"] and one.get("status") == each["status"]), {}
        )
        each["lastTransitionTime"] = was.get("lastTransitionTime", stamp(tools.clock()))
        each["observedGeneration"] = generation
    wanted = {"conditions": [*kept, *bad], "observedGeneration": generation}
    if changes := changed(wanted, thing.get("status", {})):
        try:
            tools.actuator.status.write(namespace, name, changes)
        except (Unavailable, KubeError) as error:
            log.info("%s: the status is not written: %s", fleet, error)


def _tell_turns(tools: Tools, fleet: Fleet, old: list[dict[str, Any]], new: list[dict[str, Any]], now: float) -> None:
    """An Event for each condition that turned; progress is told by the decisions themselves."""
    before = {each["type"]: (each["status"], each["reason"]) for each in old}
    for each in new:
        is_now = (each["status"], each["reason"])
        if each["type"] != "Progressing" and each["type"] in before and before[each["type"]] != is_now:
            tools.herald.say(of_condition(fleet, each["type"], each["status"], each["reason"], each["message"], now))

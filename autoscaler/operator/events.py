"""Events on ModelFleets: one per decision, and one when a condition turns. Sent in a thread, so that no act waits."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

import msgspec

from autoscaler.operator.fleet import Fleet
from autoscaler.operator.status import stamp
from trimtab.errors import TrimtabError
from trimtab.kube import API_VERSION, Kube, KubeError, path_of
from trimtab.messages import Decision, stable_id

log = logging.getLogger(__name__)

Json = dict[str, Any]
DECISION = "trimtab.dev/decision"
_LONGEST = 1000
_WAITING = 5000


def of_decision(fleet: Fleet, decision: Decision) -> Json:
    """The Event of a decision; its name comes from the decision's id, so that it is said once."""
    reason = _camel(decision.action) + _camel(decision.outcome)
    kind = "Normal" if decision.outcome == "applied" and decision.action not in ("rollback", "quarantine") else "Warning"
    event = _event(fleet, f"{fleet.name}.{decision.id}", kind, reason, decision.reason, decision.time)
    event["metadata"]["annotations"] = {DECISION: msgspec.json.encode(decision).decode()}
    return event


def of_condition(fleet: Fleet, kind: str, status: str, reason: str, message: str, now: float) -> Json:
    """The Event of a condition that has turned."""
    good = (kind in ("Ready", "TelemetryFresh")) == (status == "True")
    name = f"{fleet.name}.{stable_id(fleet.uid, kind, status, reason, round(now))}"
    return _event(fleet, name, "Normal" if good else "Warning", reason, message, now)


class Herald:
    """Sends Events, best effort: what the API server does not take within some tries is given up."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._waiting: queue.Queue[Json] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._stop = threading.Event()

    def start(self) -> Herald:
        """Begins to send."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Sends what waits, for a moment, and ends."""
        end = time.monotonic() + 2.0
        while not self._waiting.empty() and time.monotonic() < end:
            time.sleep(0.02)
        self._stop.set()
        self._thread.join(2.0)

    def say(self, event: Json) -> None:
        """Queues an Event."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            log.warning("too many events wait; '%s' is not sent", event["reason"])

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                event = self._waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            for _ in range(3):
                try:
                    self._send(event)
                    break
                except KubeError as error:
                    log.warning("event %s is refused: %s", event["reason"], error)
                    break
                except TrimtabError as error:
                    log.info("event %s waits: %s", event["reason"], error)
                    self._stop.wait(1.0)

    def _send(self, event: Json) -> None:
        namespace, name = event["metadata"]["namespace"], event["metadata"]["name"]
        try:
            self._kube.create(path_of("events", namespace), event)
        except KubeError as error:
            if error.status != 409:
                raise
            # The same decision again, with another outcome: an act that failed at first and then succeeded.
            changed = {key: event[key] for key in ("reason", "message", "type", "lastTimestamp")}
            body = {**changed, "metadata": {"annotations": event["metadata"].get("annotations", {})}}
            self._kube.patch(path_of("events", namespace, name), body)


def _event(fleet: Fleet, name: str, kind: str, reason: str, message: str, time: float) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": fleet.namespace, "name": name},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": "ModelFleet",
            "namespace": fleet.namespace,
            "name": fleet.name,
            "uid": fleet.uid,
        },
        "reason": reason,
        "message": message[:_LONGEST],
        "type": kind,
        "source": {"component": "trimtab"},
        "reportingComponent": "trimtab",
        "reportingInstance": "trimtab-operator",
        "firstTimestamp": stamp(time),
        "lastTimestamp": stamp(time),
        "count": 1,
    }


def _camel(word: str) -> str:
    return "".join(part.capitalize() for part in word.split("_"))

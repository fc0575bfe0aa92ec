"""Takes what people ask of one fleet, and answers it in its status. What a request means is in `requests`."""

from __future__ import annotations

from typing import Any

import msgspec

from autoscaler.memory import PolicyMemory
from autoscaler.operator import requests
from autoscaler.operator.fleet import Fleet
from autoscaler.operator.status import stamp
from autoscaler.operator.tools import Tools
from trimtab.messages import FINDINGS, Decision, FleetState


class Desk:
    """The requests of one fleet: `take` begins them before a step, `answer` says after it how they ended."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._tries: dict[str, float] = {}

    def take(self, fleet: Fleet, memory: PolicyMemory, state: FleetState | None, now: float) -> int | None:
        """Begins to do what people ask; returns the version that they promote, if any."""
        waiting, refused = requests.asked(fleet.annotations, fleet.status.get("requests", []))
        self._write(fleet, [msgspec.structs.replace(each, time=now) for each in refused])
        promote = None
        pods = {each.name: each for pool in state.pools for each in pool.replicas} if state else {}
        out = {name for name, each in pods.items() if each.phase == "quarantined"}
        for request in waiting:
            if request.id in self._tries and request.kind == "quarantine" and request.pod in out:
                # It was on its way out already when this began: no decision of ours will come.
                self._refuse(request, fleet, f"{request.pod} is in quarantine already", now)
                continue
            if request.id not in self._tries:
                if state is None or memory.rollout.stable is None:
                    continue  # nothing is known of the fleet yet
                why = requests.refusal(request, memory, set(pods), out, now)
                if why is not None:
                    self._refuse(request, fleet, why, now)
                    continue
                self._tries[request.id] = now
                if request.kind == "rollback" and request.version == fleet.spec.version:
                    self._tools.actuator.status.write(fleet.namespace, fleet.name, {"withdrawn": request.version})
                if request.kind == "quarantine" and request.pod is not None:
                    self._find(request, fleet, pods[request.pod].version, now, "firing")
            if request.kind == "promote":
                promote = request.version
        return promote

    def _refuse(self, request: requests.Request, fleet: Fleet, why: str, now: float) -> None:
        if request.kind == "quarantine" and request.id in self._tries:
            self._find(request, fleet, None, now, "resolved")
        self._write(fleet, [requests.Answer(request.id, request.kind, "refused", why, None, now)])

    def answer(self, fleet: Fleet, memory: PolicyMemory, decisions: list[Decision], now: float) -> None:
        """Answers what has ended."""
        waiting, _ = requests.asked(fleet.annotations, fleet.status.get("requests", []))
        for request in waiting:
            if request.id not in self._tries:
                continue
            answer = requests.outcome(request, memory, decisions, self._tries[request.id], now)
            if answer is not None:
                self._write(fleet, [answer])
                if request.kind == "quarantine" and answer.outcome != "applied":
                    self._find(request, fleet, None, now, "resolved")  # else it would be tried again for ever

    def withdrawn(self, fleet: Fleet) -> int | None:
        """The spec's version, where a person has rolled it back; another version in the spec ends that."""
        found = self._tools.actuator.fleet(fleet.id).status.get("withdrawn")
        if found is not None and found != fleet.spec.version:
            self._tools.actuator.status.write(fleet.namespace, fleet.name, {"withdrawn": None})
            return None
        return int(found) if found is not None else None

    def _find(self, request: requests.Request, fleet: Fleet, version: int | None, now: float, state: Any) -> None:
        number = self._tools.hub.producer().send(FINDINGS, requests.finding(request, fleet.id, version, now, state))
        self._tools.hub.producer().flush(number)

    def _write(self, fleet: Fleet, answers: list[requests.Answer]) -> None:
        if not answers:
            return
        new = [
            {**{key: value for key, value in msgspec.to_builtins(each).items() if value is not None}, "time": stamp(each.time)}
            for each in answers
        ]
        old = self._tools.actuator.fleet(fleet.id).status.get("requests", [])
        self._tools.actuator.status.write(fleet.namespace, fleet.name, {"requests": requests.kept(old, new)})
        for each in answers:
            self._tries.pop(each.id, None)

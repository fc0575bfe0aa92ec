"""One fleet's loop in the operator: read the ModelFleet, say what it means, take a step of the policy, show how things stand."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from autoscaler import measures
from autoscaler.actuators.kubernetes_read import Problem, seconds
from autoscaler.actuators.kubernetes_status import Superseded
from autoscaler.demand import estimate
from autoscaler.loop import Autoscaler
from autoscaler.memory import PolicyMemory
from autoscaler.operator.conditions import Seen
from autoscaler.operator.desk import Desk
from autoscaler.operator.events import of_condition, of_decision
from autoscaler.operator.fleet import Fleet
from autoscaler.operator.meaning import Meaning, meaning, settings_for
from autoscaler.operator.nodes import cordon
from autoscaler.operator.showing import say_invalid, show
from autoscaler.operator.store import StatusStore
from autoscaler.operator.tools import Tools, Watched
from autoscaler.statefile import Saved
from trimtab.errors import SettingsError, Unavailable
from trimtab.kube import KubeError
from trimtab.messages import FLEETS, Decision, FleetSpec

log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 30.0
_TIDY_SECONDS = 10.0


class Worker:
    """`step` is the scheduler's task: it never raises for what may happen outside, and returns the pause until the next one."""

    def __init__(self, tools: Tools, fleet: Fleet, created: float) -> None:
        self._tools, self.id = tools, fleet.id
        self._watched = Watched(tools.actuator)
        self._store = StatusStore(
            tools.actuator.status, tools.cache, fleet.namespace, fleet.name, self._memory_seconds, self._along
        )
        self._created = created
        self._begin(fleet)
        self._said: Decision | None = None
        self._published: FleetSpec | None = None
        self._made: tuple[object, ...] = ()
        self._desk = Desk(tools)
        self._pause = tools.settings.step_seconds
        self._tidied = 0.0

    def _begin(self, fleet: Fleet) -> None:
        """From what the fleet's status remembers."""
        settings = settings_for(fleet.spec, self._tools.base)
        bus = self._tools.hub.attach(fleet.id, self._created, self._heard)
        self._loop = Autoscaler(bus, self._watched, self.id, settings, self._store, clock=self._tools.clock)

    @property
    def memory(self) -> PolicyMemory:
        """What the policy remembers."""
        return self._loop.saved.memory

    def step(self) -> float:
        """One step; seconds until the next."""
        problem: Problem | None = None
        meant: Meaning | None = None
        try:
            fleet = self._tools.actuator.fleet(self.id)
        except SettingsError as error:
            say_invalid(self._tools, self.id, str(error))
            return _LONGEST_PAUSE_SECONDS
        except Unavailable:
            return self._tools.settings.step_seconds
        try:
            meant = self._decide(fleet)
            self._pause = self._tools.settings.step_seconds
        except SettingsError as error:
            problem = Problem("InvalidSpec", str(error))
            self._pause = _LONGEST_PAUSE_SECONDS
        except Superseded as error:
            log.warning("%s: %s; reading it again", self.id, error)
            self._begin(fleet)
            return 0.0
        except Unavailable as error:
            problem = Problem("Unavailable", str(error))
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        except KubeError as error:
            problem = Problem("Forbidden" if error.status == 403 else "Refused", str(error))
            self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        try:
            self._show(meant, problem)
        except (Unavailable, SettingsError, KubeError) as error:
            log.info("%s: the status is not written: %s", self.id, error)
        return self._pause

    def close(self) -> None:
        """Ends the loop; the fleet stays as it is, and what is known of it is written if this process may still write."""
        try:
            self._store.flush(self._loop.saved)
        except (Unavailable, KubeError) as error:
            log.info("%s: the last of its memory is not written: %s", self.id, error)
        self._loop.close()
        self._tools.hub.detach(self.id)

    def _decide(self, fleet: Fleet) -> Meaning:
        tools, now = self._tools, self._tools.clock()
        made = (fleet.generation, tuple(sorted(fleet.drills.items())))
        idle = fleet.spec.paused or fleet.spec.dry_run or fleet.deleting
        if made != self._made:
            self._loop.configure(settings_for(fleet.spec, tools.base))
        if not idle and (made != self._made or tools.actuator.lacking(self.id)):
            tools.actuator.refresh(self.id)
        self._made = made
        promote = self._desk.take(fleet, self.memory, self._watched.state, now)
        withdrawn = self._desk.withdrawn(fleet)
        meant = meaning(fleet, self.memory, now, withdrawn=withdrawn, promote=promote)
        if meant.spec != self.memory.spec and not self._on_its_way(meant.spec):
            number = tools.hub.producer().send(FLEETS, meant.spec)
            tools.hub.producer().flush(number)
            self._published = meant.spec
        decisions = self._loop.once(0.0)
        self._desk.answer(fleet, self.memory, decisions, now)
        for decision in decisions:
            if decision.action == "quarantine" and decision.outcome == "applied":
                self._maybe_cordon(fleet, decision)
        if now - self._tidied >= _TIDY_SECONDS and not fleet.spec.paused:
            self._tidied = now
            tools.actuator.tidy(self.id)
        return meant

    def _on_its_way(self, spec: FleetSpec) -> bool:
        """Whether this was published and is not read back yet: again, with another time, it would be another release."""
        sent, known = self._published, self.memory.spec
        if sent is None or (known is not None and known.time >= sent.time and known == sent):
            return False
        return msgspec.structs.replace(spec, time=sent.time) == sent and (known is None or known.time <= sent.time)

    def _show(self, meant: Meaning | None, problem: Problem | None) -> None:
        tools, now = self._tools, self._tools.clock()
        fleet = tools.actuator.fleet(self.id)
        problems = [problem] if problem else []
        if tools.hub.problem:
            problems.append(Problem("KafkaUnavailable", tools.hub.problem))
        if self._store.lost and self.memory.rollout.stable is None:
            problems.append(Problem("MemoryLost", self._store.lost))
        seen = Seen(
            fleet=fleet,
            memory=self.memory,
            state=self._watched.state,
            meaning=meant,
            problems=problems + tools.actuator.problems(self.id),
            conflict=tools.actuator.conflicts.current(self.id, now),
            gateways_ready=tools.actuator.gateways_ready(fleet),
            now=now,
        )
        show(tools, seen, self._said)

    def _maybe_cordon(self, fleet: Fleet, decision: Decision) -> None:
        kinds = {self.memory.findings[cause].kind for cause in decision.because if cause in self.memory.findings}
        node = self._tools.actuator.node_of(fleet, decision.target or "")
        if not fleet.spec.remediation.cordon_nodes or "gpu_fault" not in kinds or node is None:
            return
        try:
            cordon(self._tools.kube, node, fleet)
            words, status_ = f"node {node} is cordoned: a GPU of it is at fault ({decision.reason})", "True"
        except (KubeError, Unavailable) as error:
            words, status_ = f"node {node} cannot be cordoned: {error}", "False"
        reason = "NodeCordoned" if status_ == "True" else "CordonFailed"
        self._tools.herald.say(of_condition(fleet, "Node", "True", reason, words, self._tools.clock()))

    def _memory_seconds(self) -> float:
        """Many fleets share the writes that no act depends on."""
        settings = self._tools.settings
        return max(settings.memory_seconds, len(self._tools.cache.fleets) / settings.memory_writes_per_second)

    def _heard(self, decision: Decision) -> None:
        self._said = decision
        try:
            fleet = self._tools.actuator.fleet(self.id)
        except (SettingsError, Unavailable):
            return
        self._tools.herald.say(of_decision(fleet, decision))

    def _along(self, saved: Saved) -> dict[str, object]:
        """What goes along when memory is written: a number that moves all the time."""
        rate = estimate(saved.memory.demand, self._tools.base).rate
        fresh = saved.memory.blind_since is None and rate is not None
        return {"demand": {"arrivalsPerSecond": round(rate, 1) if fresh and rate is not None else None}}


def created_at(thing: dict[str, Any]) -> float:
    """When a ModelFleet was made, as unix seconds."""
    return seconds(thing["metadata"]["creationTimestamp"])


def forget(fleet: str) -> None:
    """Drops a fleet's own metrics."""
    try:
        measures.forget(fleet)
    except KeyError:
        log.debug("%s had no metrics", fleet)

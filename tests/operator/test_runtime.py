"""What carries the fleets in one process: hub, producer, scheduler, store, requests, status. No cluster."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.actuators.kubernetes_cache import Shelf
from autoscaler.actuators.kubernetes_read import Problem
from autoscaler.baseline import Baseline
from autoscaler.demand import DemandMemory
from autoscaler.memory import PolicyMemory
from autoscaler.operator import requests
from autoscaler.operator.conditions import Seen, conditions, stamped
from autoscaler.operator.crd import as_table, as_yaml, spec_schema
from autoscaler.operator.desk import Desk
from autoscaler.operator.fleet import read
from autoscaler.operator.hub import Hub, SharedProducer
from autoscaler.operator.meaning import meaning
from autoscaler.operator.scheduler import Scheduler
from autoscaler.operator.status import changed, slo_word, status
from autoscaler.operator.store import StatusStore, pack, unpack
from autoscaler.rollout import Phase, Rollout
from autoscaler.sequential import Rate
from autoscaler.statefile import Saved
from trimtab.errors import Unavailable
from trimtab.memory_bus import MemoryBus
from trimtab.messages import FINDINGS, FLEETS, TELEMETRY, Decision, Finding, FleetState, PoolState, ReplicaState, Slo, Snapshot


def finding(fleet: str, number: int = 0) -> Finding:
    return Finding(
        id=f"{fleet}-{number}",
        fleet=fleet,
        kind="replica_fault",
        severity="critical",
        onset=0.0,
        time=time.time(),
        state="firing",
        confidence=1.0,
        summary="x",
    )


def until(holds: Any) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_each_fleet_hears_its_own_and_what_came_before_it_was_there() -> None:
    bus, woken, stop = MemoryBus(), [], threading.Event()
    bus.ensure_topics()
    producer = bus.producer()
    producer.send(FINDINGS, finding("a", 1))
    hub = Hub(bus, lambda fleet, urgent: woken.append((fleet, urgent)))
    hub.start(stop)
    until(lambda: hub._early.get("a"))
    a = hub.attach("a", 0.0, lambda _: None).consumer([], group=None)
    b = hub.attach("b", 0.0, lambda _: None).consumer([], group=None)
    assert [record.message.id for record in a.poll(0)] == ["a-1"]  # type: ignore[attr-defined]
    producer.send(TELEMETRY, Snapshot(target="g", fleet="b", role="gateway", time=1.0, took=0.0, up=True))
    producer.send(FINDINGS, finding("b", 2))
    until(lambda: ("b", True) in woken and ("b", False) in woken)
    assert {record.topic for record in b.poll(0)} == {TELEMETRY, FINDINGS} and a.poll(0) == []
    hub.detach("b")
    late = hub.attach("c", time.time() + 60, lambda _: None).consumer([], group=None)
    assert late.poll(0) == []
    stop.set()
    hub.join()


def test_a_fleet_that_was_made_anew_does_not_inherit_findings() -> None:
    bus, stop = MemoryBus(), threading.Event()
    bus.ensure_topics()
    bus.producer().send(FINDINGS, finding("a", 1))
    hub = Hub(bus, lambda *_: None)
    hub.start(stop)
    until(lambda: hub._early.get("a"))
    assert hub.attach("a", time.time() + 10, lambda _: None).consumer([], group=None).poll(0) == []
    stop.set()
    hub.join()


def test_a_fleet_that_was_forgotten_leaves_nothing_for_the_next_of_its_name() -> None:
    bus, stop = MemoryBus(), threading.Event()
    bus.ensure_topics()
    producer = bus.producer()
    producer.send(FINDINGS, finding("a", 1))
    hub = Hub(bus, lambda *_: None)
    hub.start(stop)
    until(lambda: hub._early.get("a"))
    shared = hub.producer()
    shared.flush(shared.forget(FLEETS, "a"))
    until(lambda: "a" not in hub._early)
    assert hub.attach("a", 0.0, lambda _: None).consumer([], group=None).poll(0) == []
    assert hub.problem is None
    stop.set()
    hub.join()


def test_many_flush_together_and_all_learn_of_a_failure() -> None:
    bus = MemoryBus()
    bus.ensure_topics()
    shared = SharedProducer(bus)
    numbers = [shared.send(FINDINGS, finding("a", index)) for index in range(50)]
    threads = [threading.Thread(target=shared.flush, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(bus.topics[FINDINGS]) == 50
    bus.away = True
    number = shared.send(FINDINGS, finding("a"))
    with pytest.raises(Unavailable):
        shared.flush(number)
    bus.away = False
    shared.flush(number)
    assert len(bus.topics[FINDINGS]) == 51


def test_the_scheduler_runs_a_fleet_never_twice_at_a_time_and_wakes_it() -> None:
    scheduler, stop = Scheduler(4, 0.0), threading.Event()
    running, most, runs = [0], [0], [0]

    def step() -> float:
        running[0] += 1
        most[0] = max(most[0], running[0])
        runs[0] += 1
        time.sleep(0.002)
        running[0] -= 1
        return 1000.0

    scheduler.start(stop)
    scheduler.add("a", step)
    for _ in range(50):
        scheduler.wake("a", True)
        time.sleep(0.001)
    until(lambda: runs[0] >= 3)
    assert most[0] == 1
    assert scheduler.remove("a")
    seen = runs[0]
    scheduler.wake("a", True)
    assert runs[0] == seen
    stop.set()
    scheduler.join()


def test_what_is_urgent_comes_before_all_that_is_due() -> None:
    scheduler, stop, gate, order = Scheduler(1, 0.0), threading.Event(), threading.Event(), []

    def step(name: str) -> float:
        gate.wait(10)
        order.append(name)
        return 1000.0

    for number in range(100):
        scheduler.add(f"f{number}", lambda name=f"f{number}": step(name))  # type: ignore[misc]
    scheduler.start(stop)
    scheduler.wake("f77")
    scheduler.wake("f99", True)
    scheduler.wake("f99", True)
    gate.set()
    until(lambda: len(order) >= 100)
    assert "f99" in order[:2] and sorted(set(order)) == sorted(f"f{number}" for number in range(100))
    assert order.count("f50") == 1
    stop.set()
    scheduler.join()
    scheduler.wake("f1", True)
    assert scheduler.remove("f1")


def test_an_object_that_is_known_is_no_news() -> None:
    told: list[str] = []
    shelf = Shelf(lambda thing: "g", lambda _namespace, group: told.append(group))

    def pod(version: int, uid: str = "u") -> dict[str, Any]:
        return {"metadata": {"namespace": "n", "name": "p", "uid": uid, "resourceVersion": str(version)}}

    shelf.hear("ADDED", pod(1))
    assert shelf.put(pod(5))  # the answer to a request of ours
    for version in (4, 5):
        shelf.hear("MODIFIED", pod(version))
    assert told == ["g"] and shelf.get("n", "p") == pod(5) and len(shelf) == 1
    shelf.hear("MODIFIED", pod(6))
    shelf.hear("ADDED", pod(3, "another of this name"))
    shelf.hear("DELETED", pod(7))
    assert told == ["g"] * 4 and shelf.get("n", "p") is None and len(shelf) == 0


def test_a_spec_is_read_again_only_when_its_generation_is_another() -> None:
    thing: dict[str, Any] = {
        "metadata": {"namespace": "n", "name": "f", "uid": "u", "generation": 1},
        "spec": {"model": "intent", "capacityPerReplica": 40},
    }
    first = read(thing)
    moved = read({**thing, "status": {"phase": "stable"}}, first)
    assert moved.spec is first.spec and moved.status == {"phase": "stable"}
    for meta in ({"generation": 2}, {"uid": "v"}):
        other = read({"metadata": {**thing["metadata"], **meta}, "spec": {**thing["spec"], "version": 2}}, first)
        assert other.spec.version == 2


def test_memory_that_no_act_depends_on_is_written_as_often_as_many_fleets_allow() -> None:
    written: list[dict[str, Any]] = []
    writer, pause = SimpleNamespace(write=lambda _ns, _name, changes: written.append(changes)), [1000.0]
    store = StatusStore(writer, SimpleNamespace(fleets={}), "n", "f", lambda: pause[0])  # type: ignore[arg-type]
    saved = Saved(fleet="n_f")
    store.save(saved)
    saved = msgspec.structs.replace(saved, consumed={"t:0": 1})
    store.save(saved)
    assert len(written) == 1
    pause[0] = 0.0
    store.save(saved)
    assert len(written) == 2


def test_a_bug_in_one_fleet_does_not_stop_another() -> None:
    scheduler, stop, good = Scheduler(2, 0.0), threading.Event(), threading.Event()
    scheduler.start(stop)
    scheduler.add("bad", lambda: 1 / 0)

    def fine() -> float:
        good.set()
        return 1.0

    scheduler.add("good", fine)
    assert good.wait(10)
    stop.set()
    scheduler.join()


def test_memory_survives_the_status_and_damage_is_told() -> None:
    saved = Saved(fleet="prod_intent", memory=PolicyMemory(started=1.0, size=3), consumed={"t:0": 7})
    assert unpack(pack(saved), "prod_intent") == saved
    with pytest.raises(ValueError, match="of fleet 'prod_intent'"):
        unpack(pack(saved), "other")


@given(st.text(max_size=200))
def test_hostile_memory_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"status\.memory"):
        unpack(text, "f")


def seen(**changes: Any) -> Seen:
    meta = {"namespace": "prod", "name": "intent", "uid": "u", "generation": 3}
    fleet = read({"metadata": meta, "spec": {"model": "intent", "capacityPerReplica": 40, **changes.pop("spec", {})}})
    ready = ReplicaState(name="p", version=1, phase="ready", since=0.0, in_traffic=True)
    state = FleetState(
        fleet=fleet.id, time=0, pools=[PoolState(version=1, role="stable", weight=100, wanted=1, replicas=[ready])]
    )
    memory = PolicyMemory(rollout=Rollout(stable=1), demand=DemandMemory(seen=1.0))
    given_: dict[str, Any] = {
        "fleet": fleet,
        "memory": memory,
        "state": state,
        "meaning": meaning(fleet, memory, 0.0),
        "problems": [],
        "conflict": None,
        "gateways_ready": 1,
        "now": 100.0,
    }
    return Seen(**(given_ | changes))


def reasons(found: Seen) -> dict[str, tuple[str, str]]:
    return {each.type: (each.status, each.reason) for each in conditions(found)}


def test_conditions() -> None:
    fine = reasons(seen())
    assert fine["Ready"] == ("True", "Serving") and fine["Degraded"] == ("False", "AsExpected")
    assert fine["Progressing"] == ("False", "Settled") and fine["TelemetryFresh"] == ("True", "Fresh")
    assert reasons(seen(gateways_ready=0))["Ready"] == ("False", "GatewayMissing")
    assert reasons(seen(gateways_ready=None))["Ready"] == ("True", "Serving")
    assert reasons(seen(state=None))["Ready"] == ("Unknown", "NotObserved")
    assert reasons(seen(spec={"replicas": {"min": 2}}))["Ready"][0] == "True"  # one was wanted and is there
    trial = PolicyMemory(rollout=Rollout(phase=Phase.CANARY, stable=1, candidate=2))
    assert reasons(seen(memory=trial))["Progressing"] == ("True", "CanaryOnTrial")
    two = [Problem("QuotaExceeded", "no"), Problem("ImagePullFailed", "x")]
    worst = next(each for each in conditions(seen(problems=two)) if each.type == "Degraded")
    assert worst.reason == "QuotaExceeded" and "1 more: ImagePullFailed" in worst.message
    assert reasons(seen(spec={"dryRun": True}))["Paused"] == ("True", "DryRun")


def test_a_status_is_written_only_when_it_changes_and_times_stay_while_a_condition_does() -> None:
    first = status(seen())
    fleet = seen().fleet._replace(status=first)
    again = status(seen(fleet=fleet, now=200.0))
    assert changed(again, first) == {}
    decision = {"lastDecision": {"id": "x", "target": None}}
    assert changed(decision, {"lastDecision": {"id": "x"}}) == {}
    assert changed(decision, {"lastDecision": {"id": "x", "target": "p"}}) == decision
    turned = status(seen(fleet=fleet, now=200.0, gateways_ready=0))
    assert set(changed(turned, first)) == {"conditions"}
    times = {each["type"]: each["lastTransitionTime"] for each in turned["conditions"]}
    assert times["Ready"] != times["Paused"] == first["conditions"][3]["lastTransitionTime"]
    assert all(each["observedGeneration"] == 3 for each in stamped(conditions(seen()), [], 3, "t"))


def test_the_slo_word() -> None:
    def word(fast: float, failed: float, total: float = 1000.0) -> str:
        latency = {"100": total * fast, "250": total * fast, "500": total, "+Inf": total}
        return slo_word(Baseline(version=1, error=Rate(failed, total), latency=latency), Slo(p99_seconds=0.3, error_ratio=0.01))

    assert (word(1.0, 0), word(0.98, 0), word(1.0, 11), word(1.0, 0, 5)) == ("Met", "Missed", "Missed", "Unknown")


def test_requests_are_read_refused_and_answered() -> None:
    text = msgspec.json.encode({"id": "r1", "version": 2, "at": 1000.0, "by": "kubectl", "more": 1}).decode()
    asked, refused = requests.asked({"trimtab.dev/request-rollback": text, "trimtab.dev/request-promote": "not json"}, [])
    assert [each.id for each in asked] == ["r1"] and "cannot be read" in refused[0].reason
    assert requests.asked({"trimtab.dev/request-rollback": text}, [{"id": "r1"}]) == ([], [])
    trial = PolicyMemory(rollout=Rollout(phase=Phase.CANARY, stable=1, candidate=2))
    (request,) = asked
    assert requests.refusal(request, trial, set(), set(), 1100.0) is None
    assert "good for 600 s" in str(requests.refusal(request, trial, set(), set(), 2000.0))
    assert "serves alone" in str(
        requests.refusal(
            msgspec.structs.replace(request, version=1), PolicyMemory(rollout=Rollout(stable=1)), set(), set(), 1100.0
        )
    )
    done = Decision(id="d", fleet="f", time=1.0, action="rollback", outcome="applied", reason="back")
    answer = requests.outcome(request, trial, [done], 1000.0, 1001.0)
    assert answer is not None and (answer.outcome, answer.decision) == ("applied", "d")
    assert requests.outcome(request, trial, [], 1000.0, 1001.0) is None
    late = requests.outcome(request, trial, [], 1000.0, 2000.0)
    assert late is not None and late.outcome == "failed"
    assert len(requests.kept([{"id": str(n)} for n in range(10)], [{"id": "new"}])) == 10


def test_a_quarantine_that_happened_before_the_request_was_seen_is_answered() -> None:
    """The state that a request is checked against is that of the last step; what it asks may have been done since."""
    asked = '{"id": "q1", "pod": "a", "at": 999.0}'
    given = {"metadata": {"namespace": "prod", "name": "intent", "uid": "u", "generation": 1}, "spec": {"model": "intent"}}
    given["spec"]["capacityPerReplica"] = 40  # type: ignore[index]
    given["metadata"]["annotations"] = {"trimtab.dev/request-quarantine": asked}  # type: ignore[index]
    fleet, written, bus = read(given), [], MemoryBus()
    bus.ensure_topics()
    status_ = SimpleNamespace(write=lambda _ns, _name, fields: written.append(fields))
    producer = SharedProducer(bus)
    hub = SimpleNamespace(producer=lambda: producer)
    desk = Desk(SimpleNamespace(actuator=SimpleNamespace(fleet=lambda _id: fleet, status=status_), hub=hub))  # type: ignore[arg-type]
    memory = PolicyMemory(rollout=Rollout(stable=1))

    def state(phase: Any) -> FleetState:
        one = ReplicaState(name="a", version=1, phase=phase, since=0.0)
        return FleetState(
            fleet=fleet.id, time=1000.0, pools=[PoolState(version=1, role="stable", weight=100, wanted=1, replicas=[one])]
        )

    desk.take(fleet, memory, state("ready"), 1000.0)
    desk.answer(fleet, memory, [], 1000.0)
    assert written == []
    desk.take(fleet, memory, state("quarantined"), 1001.0)
    (answer,) = written[0]["requests"]
    assert answer["outcome"] == "refused" and "in quarantine already" in answer["reason"]
    assert [record.message.state for record in bus.read_all([FINDINGS])] == ["firing", "resolved"]


def test_the_definition_in_the_repository_is_the_one_that_the_code_makes() -> None:
    from pathlib import Path

    root = Path(__file__).parents[2]
    assert (root / "deploy/kubernetes/base/crd/modelfleet.yaml").read_text() == as_yaml()
    assert as_table() in (root / "docs/kubernetes-api.md").read_text()


def test_the_schema_is_structural() -> None:
    def walk(schema: Any) -> None:
        if isinstance(schema, dict):
            assert not {"$ref", "anyOf", "allOf", "const", "title", "exclusiveMinimum"} & set(schema), schema
            for each in schema.values():
                walk(each)

    walk({key: value for key, value in spec_schema().items() if key != "description"})

"""Two operators and one Lease on a real API server: takeover, partition, fencing, memory, rights taken away in flight."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from rights import RBAC, gateway_role, limited
from world import World

from autoscaler.actuators.kubernetes_cache import Cache
from autoscaler.actuators.kubernetes_status import StatusWriter
from autoscaler.operator.process import Operator
from trimtab.errors import Unavailable
from trimtab.kube import Kube, KubeError, fleet_name, fleet_path, path_of

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
Make = Callable[..., Json]


@contextlib.contextmanager
def sampled(world: World) -> Any:
    """Looks a hundred times a second how many operators would act; gives the highest number."""
    most, stop = [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.01):
            most[0] = max(most[0], sum(operator.lease.leads for operator, _, _ in world.running))

    thread = threading.Thread(target=look)
    thread.start()
    yield most
    stop.set()
    thread.join()


def cut(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network between this operator and the API server's Leases is gone, as after `kill -9` or a partition."""

    def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("the network is cut by a test")

    monkeypatch.setattr(operator.lease, "_kube", type("Cut", (), {"get": away, "create": away, "request": away})())


def test_a_leader_that_is_cut_off_stops_before_another_begins(
    world: World, make_fleet: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(make_fleet(replicas={"min": 1, "max": 3})["metadata"]["name"])
    world.ready(name)
    first = world.running[0][0]
    second = world.start()
    time.sleep(1.5)
    assert first.lease.leads and not second.lease.leads
    with sampled(world) as most:
        cut(first, monkeypatch)
        assert second.ready.wait(60)
    assert most[0] == 1
    assert not first.lease.leads and second.lease.term > 1
    before = len(world.decisions(name, "scale"))
    world.spec(name, replicas={"min": 2})
    world.until(lambda: world.status(name).get("readyReplicas") == 2, "the new leader acts")
    assert len(world.decisions(name, "scale")) - before == 1
    with pytest.raises(Unavailable, match="does not lead"):
        first._actuator.status.write(world.namespace, name, {"slo": "Met"})


def test_a_former_leaders_late_write_is_fenced_by_its_term(world: World, make_fleet: Make, cache: Cache) -> None:
    name = str(make_fleet()["metadata"]["name"])
    world.ready(name)
    old = StatusWriter(world.kube, cache, guard=lambda: None, term=lambda: 0)
    # It believes to lead, and what it knows is as old as its lead: the write meets a conflict, then the newer term.
    with pytest.raises(Unavailable, match="another operator leads"):
        old.write(world.namespace, name, {"slo": "Missed"})
    assert world.status(name)["slo"] != "Missed"


def test_an_operator_that_stops_hands_over_at_once_and_nothing_is_repeated(world: World, make_fleet: Make) -> None:
    name = str(make_fleet(rollout={"startDeadlineSeconds": 5, "steps": [20, 50]})["metadata"]["name"])
    world.ready(name)
    world.spec(name, version=2, gpu={"count": 1})
    world.until(lambda: world.decisions(name, "rollback"), "rolled back")
    world.stop()
    said = {(each.id, each.action, each.reason) for each in world.decisions(name) if each.action != "hold"}
    uid = world.deployment(f"{name}-v1")["metadata"]["uid"]
    third = world.start()
    assert third.ready.wait(60)
    time.sleep(3.0)
    # What was rolled back stays so, and no act is done or said again.
    # A decision may be told again, under its id; a new one would be an act repeated.
    assert {(each.id, each.action, each.reason) for each in world.decisions(name) if each.action != "hold"} == said
    assert world.status(name).get("canaryVersion") is None and world.deployment(f"{name}-v1")["metadata"]["uid"] == uid


def test_an_operator_of_another_name_leaves_a_fleet_and_its_finalizer_alone(world: World, make_fleet: Make) -> None:
    name = str(make_fleet()["metadata"]["name"])
    world.ready(name)
    mine = f"trimtab.dev/drain-{world.namespace}"
    world.until(lambda: world.fleet(name)["metadata"].get("finalizers") == [mine], "the finalizer")
    other = world.start(instance="another", lease_name=f"{world.lease}-another")
    assert other.ready.wait(30)
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        assert world.fleet(name)["metadata"].get("finalizers") == [mine]
    world.kube.delete(fleet_path(world.namespace, name))
    world.until(lambda: not world.pods(name, role="gateway"), "its own operator drains it")
    with contextlib.suppress(KubeError):
        assert world.fleet(name)["metadata"]["finalizers"] == [mine]
    _, thread, stop = world.running.pop()
    stop.set()
    thread.join(20)


def test_damaged_memory_takes_over_what_runs(world: World, make_fleet: Make) -> None:
    name = str(make_fleet(replicas={"min": 2, "max": 3})["metadata"]["name"])
    world.ready(name)
    world.stop()
    body = {"status": {"memory": base64.b64encode(b"not memory").decode()}}
    world.kube.patch(fleet_path(world.namespace, name, sub="status"), body)
    pods = {pod["metadata"]["name"] for pod in world.pods(name)}
    assert world.start().ready.wait(60)
    world.until(lambda: len(world.status(name).get("memory", "")) > 100, "memory is written anew")
    assert pods <= {pod["metadata"]["name"] for pod in world.pods(name)}


def test_the_shipped_rights_suffice_and_losing_one_is_said(world: World, make_fleet: Make, kube: Kube, namespace: str) -> None:
    world.stop()
    gateway_role(kube)
    assert world.start(limited(kube, namespace)).ready.wait(60)
    name = str(make_fleet(replicas={"min": 1, "max": 3})["metadata"]["name"])
    world.ready(name)
    where = path_of("roles", namespace, "op", api=RBAC)
    role = kube.get(where)
    kept = [rule for rule in role["rules"] if rule["resources"] != ["deployments"]]
    kept.append({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch"]})
    kube.patch(where, {"rules": kept})
    world.spec(name, replicas={"min": 2})
    said = world.is_so(name, "Degraded", "Forbidden")
    assert "deployments" in said["message"] and "forbidden" in said["message"]
    assert world.condition(name, "Ready")["reason"] in ("Serving", "ReplicasMissing")
    world.until(lambda: [each for each in world.decisions(name) if each.outcome == "failed"], "the failure is a decision")
    kube.patch(where, {"rules": role["rules"]})
    world.until(lambda: world.status(name).get("readyReplicas") == 2, "it mends itself")
    world.is_so(name, "Degraded", "AsExpected")
    kube.delete(fleet_path(namespace, name))

    def gone() -> bool:
        try:
            world.fleet(name)
        except KubeError:
            return True
        return False

    world.until(gone, "removed with these rights")
    assert fleet_name(namespace, name)

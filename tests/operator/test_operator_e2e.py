"""The whole operator in this process against a real API server: a fleet's life, requests of people, bad input, takeover."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from autoscaler.operator.process import Operator
from autoscaler.operator.settings import OperatorSettings
from autoscaler.settings import AutoscaleSettings
from trimtab.kube import Kube, KubeError, fleet_name, fleet_path, path_of
from trimtab.memory_bus import MemoryBus
from trimtab.messages import DECISIONS, FINDINGS, TELEMETRY, Decision, Finding, Snapshot

pytestmark = pytest.mark.e2e

Json = dict[str, Any]


class World:
    """An operator that leads, and what tests ask of the cluster."""

    def __init__(self, kube: Kube, namespace: str, templates: Any, until: Callable[..., Any]) -> None:
        self.kube, self.namespace, self.until = kube, namespace, until
        self.templates = templates
        self.bus = MemoryBus()
        self.bus.ensure_topics()
        self.producer = self.bus.producer()
        self.counts: dict[str, float] = {}
        self.lease = f"trimtab-{uuid.uuid4().hex[:6]}"
        self.running: list[tuple[Operator, threading.Thread, threading.Event]] = []

    def start(self, **changes: Any) -> Operator:
        settings = OperatorSettings(
            namespace=self.namespace,
            lease_namespace=self.namespace,
            lease_name=self.lease,
            step_seconds=0.3,
            memory_seconds=2.0,
            **changes,
        )
        operator = Operator(
            self.kube, self.bus, settings, AutoscaleSettings(), f"op-{uuid.uuid4().hex[:6]}", templates=self.templates
        )
        stop = threading.Event()
        thread = threading.Thread(target=operator.run, args=(stop,), daemon=True)
        thread.start()
        self.running.append((operator, thread, stop))
        return operator

    def stop(self) -> None:
        for _, _, stop in self.running:
            stop.set()
        for _, thread, _ in self.running:
            thread.join(20)

    def fleet(self, name: str) -> Json:
        return self.kube.get(fleet_path(self.namespace, name))

    def patch(self, name: str, body: Json) -> Json:
        return self.kube.patch(fleet_path(self.namespace, name), body)

    def condition(self, name: str, kind: str) -> Json:
        found = self.fleet(name).get("status", {}).get("conditions", [])
        return next((each for each in found if each["type"] == kind), {})

    def pods(self, name: str, role: str = "triton") -> list[Json]:
        selector = f"trimtab.dev/fleet={name},trimtab.dev/role={role}"
        return list(self.kube.get(path_of("pods", self.namespace), labelSelector=selector)["items"])

    def events(self, name: str) -> list[Json]:
        found = self.kube.get(path_of("events", self.namespace), fieldSelector=f"involvedObject.name={name}")["items"]
        return [each for each in found if each["involvedObject"]["kind"] == "ModelFleet"]

    def decisions(self, name: str) -> list[Decision]:
        records = self.bus.consumer([DECISIONS], group=None).poll(0)
        fleet = fleet_name(self.namespace, name)
        return [each.message for each in records if isinstance(each.message, Decision) and each.message.fleet == fleet]

    def traffic(self, name: str, rate: float, **versions: int) -> None:
        """One scrape of the gateway: `rate` requests since the last one; v1=80, v2=20 are the shares."""
        fleet = fleet_name(self.namespace, name)
        arrived = f'envoy_http_downstream_rq_total{{envoy_http_conn_manager_prefix="{fleet}"}}'
        self._count(arrived, rate)
        for version, share in (versions or {"v1": 100}).items():
            cluster = f'envoy_cluster_name="{fleet}_{version}"'
            self._count(f'envoy_cluster_upstream_rq_xx{{{cluster},envoy_response_code_class="2"}}', rate * share / 100)
            for bound in ("5", "10", "25", "50", "100", "250", "500", "1000", "+Inf"):
                fast = 1.0 if float(bound) >= 25 else 0.3
                self._count(f'envoy_cluster_upstream_rq_time_bucket{{{cluster},le="{bound}"}}', rate * share / 100 * fast)
        mine = {key: value for key, value in self.counts.items() if f'"{fleet}' in key}
        series: dict[str, float | None] = {**mine, "envoy_server_uptime": time.time()}
        page = Snapshot(target="g1", fleet=fleet, role="gateway", time=time.time(), took=0.01, up=True, series=series)
        self.producer.send(TELEMETRY, page)

    def _count(self, key: str, more: float) -> None:
        self.counts[key] = self.counts.get(key, 0.0) + more

    def find(self, name: str, **fields: Any) -> Finding:
        finding = Finding(
            fleet=fleet_name(self.namespace, name),
            id=uuid.uuid4().hex,
            severity="critical",
            onset=time.time(),
            time=time.time(),
            state="firing",
            confidence=0.95,
            summary="seen by a test",
            **fields,
        )
        self.producer.send(FINDINGS, finding)
        return finding


@pytest.fixture(scope="module")
def world(kube: Kube, namespace: str, bare: Any, until: Callable[..., Any]) -> Iterator[World]:
    found = World(kube, namespace, bare, until)
    operator = found.start()
    assert operator.ready.wait(20)
    yield found
    found.stop()


def ready(world: World, name: str) -> bool:
    return world.condition(name, "Ready").get("status") == "True"


def test_a_fleet_comes_up_and_says_so(world: World, make_fleet: Callable[..., Json]) -> None:
    name = make_fleet(replicas={"min": 2, "max": 4})["metadata"]["name"]
    world.until(lambda: ready(world, name), "Ready")
    status = world.fleet(name)["status"]
    assert (status["version"], status["readyReplicas"], status["desiredReplicas"], status["readiness"]) == (1, 2, 2, "2/2")
    assert status["observedGeneration"] == 1 and status["plan"]["pools"][0]["weight"] == 100
    assert status["lastDecision"]["action"] in ("scale", "hold")
    assert world.kube.get(path_of("services", world.namespace, name))["spec"]["ports"][0]["port"] == 80
    budget = world.kube.get(path_of("poddisruptionbudgets", world.namespace, name, api="policy/v1"))
    assert budget["metadata"]["ownerReferences"][0]["kind"] == "ModelFleet"
    world.until(lambda: "ScaleApplied" in {each["reason"] for each in world.events(name)}, "an Event")
    first = world.fleet(name)["metadata"]["resourceVersion"]
    time.sleep(2.0)
    writes = {entry["manager"] for entry in world.fleet(name)["metadata"]["managedFields"]}
    assert "trimtab" in writes and first  # the operator's own field manager


def test_deleting_a_fleet_leaves_nothing_behind(world: World, make_fleet: Callable[..., Json]) -> None:
    name = make_fleet()["metadata"]["name"]
    world.until(lambda: ready(world, name), "Ready")
    world.kube.delete(fleet_path(world.namespace, name))

    def gone() -> bool:
        try:
            world.fleet(name)
        except KubeError as error:
            return error.status == 404
        return False

    world.until(gone, "the fleet is gone")
    selector = f"trimtab.dev/fleet={name}"
    kinds = (("pods", "v1"), ("services", "v1"), ("deployments", "apps/v1"), ("replicasets", "apps/v1"))
    more = (("poddisruptionbudgets", "policy/v1"), ("rolebindings", "rbac.authorization.k8s.io/v1"), ("serviceaccounts", "v1"))
    for plural, api in (*kinds, *more):
        where = path_of(plural, world.namespace, api=api)
        world.until(lambda where=where: not world.kube.get(where, labelSelector=selector)["items"], f"no {plural} left")

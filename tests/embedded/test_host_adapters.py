"""A set's next version goes the way of any version on a real host: canary, promotion, and back, with real Triton replicas."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import msgspec
import pytest

from embedded.host.fleet import FleetHost, Ports
from embedded.host.reconcile import GatewayPool
from embedded.host.server import HostServer
from embedded.host.targets import TargetsFile
from embedded.supervisor import Supervisor
from serving_stack.adapters_base import ensure_base
from serving_stack.adapters_set import add, release
from serving_stack.banking import intents
from serving_stack.export import ADAPTERS
from serving_stack.fault import Fault
from serving_stack.repository import UNKNOWN, publish
from serving_stack.triton import ReplicaProcess, replica_process
from trimtab.messages import FleetPlan, FleetState, PoolPlan, PoolRole

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    store = tmp_path / "store"
    for name in ("banking", "travel"):
        labels = tmp_path / f"{name}.json"
        labels.write_text(json.dumps([f"{name} {each}" for each in intents()]))
        for number in (1, 2):
            add(store, name, ADAPTERS / str(number), labels, origin=UNKNOWN)
    release(store, "edge", 1, {"banking": 1, "travel": 1}, ensure_base(), default="banking", origin=UNKNOWN)
    release(store, "edge", 2, {"banking": 2}, None, origin=UNKNOWN)
    publish(store, "edge", 3, store / "edge" / "2", Fault(kind="wrong", share=1.0))
    monkeypatch.setenv("TRIMTAB_ADAPTERS_POPULARITY_FILE", str(tmp_path / "popular.json"))
    made = Fleet(tmp_path, store)
    yield made
    made.close()


class Fleet:
    """One fleet whose model is a set."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.ports: dict[str, Ports] = {}
        self.routed: dict[int, int] = {}

        def start(name: str, version: int, given: Ports) -> ReplicaProcess:
            self.ports[name] = given
            return replica_process(
                store, "edge", version, folder / name, http_port=given.http, metrics_port=given.metrics, grpc_port=given.grpc
            )

        def route(pools: list[GatewayPool], given: Mapping[str, Ports]) -> None:
            self.routed = {pool.version: pool.weight for pool in pools if pool.listed}

        self.supervisor, self.targets = Supervisor(folder / "logs"), TargetsFile(folder / "targets.json")
        self.host = FleetHost("edge", self.supervisor, start, route, self.targets, folder / "gpus.json")
        self.server = HostServer({"edge": self.host})

    def put(self, *pools: tuple[int, PoolRole, int]) -> None:
        parts = [PoolPlan(version=version, role=role, replicas=1, weight=weight) for version, role, weight in pools]
        plan = FleetPlan(fleet="edge", decision="d", pools=parts)
        httpx.put(f"{self.server.url}/v1/fleets/edge", content=msgspec.json.encode(plan)).raise_for_status()

    def observe(self) -> FleetState:
        return msgspec.json.decode(httpx.get(f"{self.server.url}/v1/fleets/edge").content, type=FleetState)

    def ready(self) -> dict[int, str]:
        """Version -> a replica of it that is ready."""
        return {pool.version: each.name for pool in self.observe().pools for each in pool.replicas if each.phase == "ready"}

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < end, self.observe()
            time.sleep(0.1)

    def ask(self, version: int, adapter: str) -> tuple[int, str]:
        port = self.ports[self.ready()[version]].http
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["How do I change my PIN?"]}
        body = {"inputs": [tensor], "parameters": {"adapter": adapter}}
        answer = httpx.post(f"http://127.0.0.1:{port}/v2/models/edge/infer", json=body, timeout=20)
        return answer.status_code, answer.text

    def close(self) -> None:
        self.server.close()
        self.host.close()
        self.supervisor.stop()
        self.targets.close()


def test_an_adapter_s_next_version_is_tried_promoted_and_rolled_back(fleet: Fleet) -> None:
    fleet.put((1, "stable", 100))
    fleet.until(lambda: 1 in fleet.ready())
    fleet.put((1, "stable", 90), (2, "canary", 10))
    fleet.until(lambda: 2 in fleet.ready() and fleet.routed == {1: 90, 2: 10})
    for version in (1, 2):  # only the adapter that was released is another
        assert fleet.ask(version, f"banking/{version}")[0] == 200
        assert fleet.ask(version, f"banking/{3 - version}")[0] == 404
        assert fleet.ask(version, "travel/1")[0] == 200
    fleet.put((2, "stable", 100))  # promoted
    fleet.until(lambda: set(fleet.ready()) == {2})
    fleet.put((2, "stable", 90), (3, "canary", 10))
    fleet.until(lambda: 3 in fleet.ready())
    assert "banking change_pin" in fleet.ask(2, "banking")[1] and "banking change_pin" not in fleet.ask(3, "banking")[1]
    fleet.put((2, "stable", 100))  # rolled back
    fleet.until(lambda: set(fleet.ready()) == {2} and fleet.routed == {2: 100})
    assert fleet.ask(2, "travel")[0] == 200

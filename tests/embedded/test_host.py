"""The fleet host over HTTP, on real (small) replica processes: start, route, drain, quarantine, fail, refuse."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest

from embedded import ports
from embedded.host.fleet import FleetHost, Ports
from embedded.host.reconcile import GatewayPool, in_traffic
from embedded.host.server import HostServer
from embedded.host.targets import TargetsFile
from embedded.supervisor import Supervisor
from trimtab.errors import Missing
from trimtab.messages import FleetPlan, FleetState, PoolPlan, PoolRole, ReplicaState

pytestmark = pytest.mark.integration  # real processes, seconds each

FAKE = Path(__file__).with_name("fake_replica.py")


@dataclass
class FakeProcess:
    argv: list[str]
    ready_url: str
    metrics_url: str
    env: Mapping[str, str] = field(default_factory=dict)
    shm_prefix: str = "trimtab_fake_"


def make(name: str, version: int, given: Ports) -> FakeProcess:
    if version == 99:
        raise Missing("version 99 of intent is not in the repository")
    return FakeProcess(
        [sys.executable, str(FAKE), str(given.http), str(given.metrics), str(version)],
        f"http://127.0.0.1:{given.http}/v2/models/intent/versions/{version}/ready",
        f"http://127.0.0.1:{given.metrics}/metrics",
    )


class Rig:
    """A host with what it writes to."""

    def __init__(self, folder: Path) -> None:
        self.published: list[tuple[list[GatewayPool], Mapping[str, Ports]]] = []
        self.supervisor = Supervisor(folder / "logs")
        self.targets = TargetsFile(folder / "targets.json")
        self.gpus_file = folder / "gpus.json"
        self.host = FleetHost("intent", self.supervisor, make, self.publish, self.targets, self.gpus_file, ready_timeout=3)
        self.server = HostServer({"intent": self.host})
        self.url = f"{self.server.url}/v1/fleets/intent"

    def publish(self, pools: list[GatewayPool], given: Mapping[str, Ports]) -> None:
        self.published.append((pools, dict(given)))

    def put(self, *pools: tuple[int, PoolRole, int, int], quarantined: tuple[str, ...] = ()) -> httpx.Response:
        parts = [
            PoolPlan(version=version, role=role, replicas=replicas, weight=weight) for version, role, replicas, weight in pools
        ]
        plan = FleetPlan(fleet="intent", decision="d", pools=parts, quarantined=list(quarantined))
        return httpx.put(self.url, content=msgspec.json.encode(plan))

    def observe(self) -> FleetState:
        return msgspec.json.decode(httpx.get(self.url).content, type=FleetState)

    def replicas(self) -> dict[str, ReplicaState]:
        return {replica.name: replica for pool in self.observe().pools for replica in pool.replicas}

    def phases(self) -> dict[str, str]:
        return {name: replica.phase for name, replica in self.replicas().items()}

    def serving(self) -> set[str]:
        return in_traffic(self.published[-1][0]) if self.published else set()

    def scraped(self) -> set[str]:
        return {entry["labels"]["target"] for entry in json.loads(self.targets.path.read_text())}

    def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.observe(), self.serving(), self.host.error)
            time.sleep(0.02)

    def close(self) -> None:
        self.server.close()
        self.host.close()
        self.supervisor.stop()
        self.targets.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_starts_routes_and_scrapes_what_the_plan_says(rig: Rig) -> None:
    assert rig.put((1, "stable", 2, 100)).status_code == 202
    rig.until(lambda: rig.phases() == {"intent-v1-1": "ready", "intent-v1-2": "ready"})
    rig.until(lambda: rig.serving() == {"intent-v1-1", "intent-v1-2"})
    assert all(replica.in_traffic for replica in rig.replicas().values())
    assert json.loads(rig.gpus_file.read_text()) == {"0": "intent-v1-1", "1": "intent-v1-2"}
    entries = json.loads(rig.targets.path.read_text())
    labels = {"fleet": "intent", "role": "triton", "target": "intent-v1-1", "pool": "stable", "version": "1"}
    assert entries[0]["labels"] == labels | {"__metrics_path__": "/metrics"}
    assert httpx.get(f"http://{entries[0]['targets'][0]}/metrics").status_code == 200
    count = len(rig.published)
    assert rig.put((1, "stable", 2, 100)).status_code == 202
    time.sleep(0.3)
    assert len(rig.published) == count
    assert len(rig.phases()) == 2


def test_a_rollout_moves_weights_and_drains_the_old_version(rig: Rig) -> None:
    rig.put((1, "stable", 1, 100))
    rig.until(lambda: rig.serving() == {"intent-v1-1"})
    rig.put((1, "stable", 1, 80), (2, "canary", 1, 20))
    rig.until(lambda: rig.serving() == {"intent-v1-1", "intent-v2-1"})
    assert {pool.version: (pool.role, pool.weight) for pool in rig.observe().pools} == {1: ("stable", 80), 2: ("canary", 20)}
    rig.put((2, "stable", 1, 100))
    rig.until(lambda: rig.phases().get("intent-v1-1") == "draining")
    assert rig.serving() == {"intent-v2-1"}
    process = rig.host.process("intent-v1-1")
    rig.until(lambda: rig.phases() == {"intent-v2-1": "ready"})
    assert process.wait_ended(10) is not None
    assert rig.scraped() == {"intent-v2-1"}


def test_a_quarantined_replica_is_taken_out_kept_and_replaced(rig: Rig) -> None:
    rig.put((1, "stable", 2, 100))
    rig.until(lambda: len(rig.serving()) == 2)
    rig.host.process("intent-v1-1").signal_tree(signal.SIGSTOP)  # it hangs
    rig.put((1, "stable", 2, 100), quarantined=("intent-v1-1",))
    rig.until(lambda: rig.phases()["intent-v1-1"] == "quarantined")
    assert rig.serving() == {"intent-v1-2"}
    rig.until(lambda: rig.serving() == {"intent-v1-2", "intent-v1-3"})
    assert rig.scraped() == {"intent-v1-1", "intent-v1-2", "intent-v1-3"}
    kept = rig.host.process("intent-v1-1")
    rig.put((1, "stable", 2, 100))
    rig.until(lambda: "intent-v1-1" not in rig.phases())
    assert kept.wait_ended(15) is not None  # although it was stopped and could not hear SIGTERM


def test_the_last_replica_serves_until_its_replacement_is_ready(rig: Rig) -> None:
    rig.put((1, "stable", 1, 100))
    rig.until(lambda: rig.serving() == {"intent-v1-1"})
    rig.put((1, "stable", 1, 100), quarantined=("intent-v1-1",))
    rig.until(lambda: rig.serving() == {"intent-v1-2"})
    first = next(i for i, (pools, _) in enumerate(rig.published) if in_traffic(pools))
    assert all(in_traffic(pools) for pools, _ in rig.published[first:])


def test_a_replica_that_dies_fails_with_its_reason_and_waits_for_a_decision(rig: Rig) -> None:
    rig.put((1, "stable", 2, 100))
    rig.until(lambda: len(rig.serving()) == 2)
    rig.host.process("intent-v1-2").signal_tree(signal.SIGKILL)
    rig.until(lambda: rig.phases()["intent-v1-2"] == "failed")
    rig.until(lambda: rig.serving() == {"intent-v1-1"})
    failed = rig.replicas()["intent-v1-2"]
    assert failed.error is not None
    assert "killed by SIGKILL" in failed.error
    assert not failed.in_traffic
    assert "intent-v1-2" in rig.scraped()  # its failing scrape is evidence
    time.sleep(0.3)
    assert set(rig.phases()) == {"intent-v1-1", "intent-v1-2"}
    rig.put((1, "stable", 2, 100), quarantined=("intent-v1-2",))
    rig.until(lambda: rig.serving() == {"intent-v1-1", "intent-v1-3"})


@pytest.mark.parametrize(
    ("version", "words"),
    [(13, "unlucky weights"), (14, r"was not ready within 3 s"), (99, "is not in the repository")],
)
def test_a_version_that_does_not_come_up_fails_with_the_reason(rig: Rig, version: int, words: str) -> None:
    rig.put((1, "stable", 1, 100))
    rig.until(lambda: rig.serving() == {"intent-v1-1"})
    rig.put((1, "stable", 1, 95), (version, "canary", 1, 5))
    name = f"intent-v{version}-1"
    rig.until(lambda: rig.phases().get(name) == "failed")
    error = rig.replicas()[name].error
    assert error is not None
    assert words in error
    assert rig.serving() == {"intent-v1-1"}
    assert name not in rig.scraped()
    rig.put((1, "stable", 1, 100))
    rig.until(lambda: rig.phases() == {"intent-v1-1": "ready"})


def test_a_port_that_was_taken_meanwhile_is_replaced(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ports.free_ports
    with socket.create_server(("127.0.0.1", 0)) as thief:
        lost = [thief.getsockname()[1], *real(2)]
        given = iter([lost, real(3), real(3)])
        monkeypatch.setattr(ports, "free_ports", lambda count: next(given))
        rig.put((1, "stable", 1, 100))
        rig.until(lambda: rig.serving() == {"intent-v1-1"})
        assert rig.published[-1][1]["intent-v1-1"].http != lost[0]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"not json", "This is not a plan"),
        (b"{}", "missing required field"),
        (b"\xff\xfe", "This is not a plan"),
        (
            b'{"fleet":"intent","decision":"d","pools":[{"version":1,"role":"boss","replicas":1,"weight":100}]}',
            "Invalid enum value",
        ),
        (b'{"fleet":"intent","decision":"d","pools":[]}', "no pools"),
        (
            b'{"fleet":"other","decision":"d","pools":[{"version":1,"role":"stable","replicas":1,"weight":100}]}',
            "is for fleet 'other'",
        ),
    ],
)
def test_a_bad_plan_is_refused_in_words_and_changes_nothing(rig: Rig, body: bytes, words: str) -> None:
    rig.put((1, "stable", 1, 100))
    rig.until(lambda: rig.serving() == {"intent-v1-1"})
    answer = httpx.put(rig.url, content=body)
    assert answer.status_code == 400
    assert words in answer.text
    assert rig.phases() == {"intent-v1-1": "ready"}


def test_other_paths_and_fleets_are_not_there(rig: Rig) -> None:
    assert httpx.get(f"{rig.server.url}/v1/fleets/none").status_code == 404
    assert "only /v1/fleets/intent" in httpx.get(f"{rig.server.url}/").text
    assert httpx.put(rig.url, content=b" " * 1_000_001).status_code == 413


def test_a_gateway_that_cannot_be_written_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = rig.host._publish, iter([True, True, False])

    def flaky(pools: list[GatewayPool], given: Mapping[str, Ports]) -> None:
        if next(failures, False):
            raise OSError("disk full")
        real(pools, given)

    monkeypatch.setattr(rig.host, "_publish", flaky)
    rig.put((1, "stable", 1, 100))
    rig.until(lambda: rig.serving() == {"intent-v1-1"})
    rig.until(lambda: rig.host.error is None)

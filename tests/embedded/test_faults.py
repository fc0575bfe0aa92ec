"""Injected faults on real processes, and the scrape targets that go dark and come back."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from embedded.faults import Faults, fault_file
from embedded.host.fleet import FleetHost
from embedded.host.targets import Target, TargetsFile
from embedded.supervisor import Process, ProcessSpec, Supervisor
from trimtab.errors import Missing


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


class Rig:
    """One sleeping process as the only replica."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.supervisor = Supervisor(folder / "logs")
        self.process = self.supervisor.spawn(ProcessSpec("intent-v1-1", ["sleep", "600"]))
        self.process.wait_ready()
        self.targets = TargetsFile(folder / "targets.json")
        self.targets.set("replicas", [Target("127.0.0.1:1", "intent-v1-1", "triton", "intent", "stable", 1)])
        self.targets.set("gateway", [Target("127.0.0.1:2", "gateway", "gateway", "intent")])
        host = cast(FleetHost, SimpleNamespace(process=self.of))
        self.faults = Faults(host, self.targets, folder / "replicas", folder / "gpu.json")

    def of(self, name: str) -> Process:
        return {"intent-v1-1": self.process}[name]

    def addresses(self) -> dict[str, str]:
        return {entry["labels"]["target"]: entry["targets"][0] for entry in json.loads(self.targets.path.read_text())}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.faults.lift()
    made.supervisor.stop()
    made.targets.close()


def test_hang_stops_the_process_and_crash_kills_it(rig: Rig) -> None:
    assert rig.process.pid is not None
    process = psutil.Process(rig.process.pid)
    rig.faults.inject("hang", "intent-v1-1")
    assert wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
    rig.faults.inject("crash", "intent-v1-1")
    assert rig.process.wait_ended(10) == 128 + signal.SIGKILL
    with pytest.raises(Missing, match="runs no more"):
        rig.faults.inject("hang", "intent-v1-1")


def test_slow_and_gpu_are_files_that_lift_removes(rig: Rig) -> None:
    rig.faults.inject("slow", "intent-v1-1", 0.3)
    rig.faults.inject("gpu", "intent-v1-1")
    slow = fault_file(rig.folder / "replicas", "intent-v1-1")
    assert json.loads(slow.read_text()) == {"kind": "slow", "seconds": 0.3}
    assert json.loads((rig.folder / "gpu.json").read_text()) == {"intent-v1-1": "xid79"}
    rig.faults.lift()
    assert not slow.exists()
    assert json.loads((rig.folder / "gpu.json").read_text()) == {}


def test_a_replica_that_is_not_there(rig: Rig) -> None:
    with pytest.raises(Missing, match="no replica intent-v9-9"):
        rig.faults.inject("hang", "intent-v9-9")


@pytest.mark.parametrize(
    ("which", "hit"),
    [
        ("all", ["gateway", "intent-v1-1"]),
        ("gateway", ["gateway"]),
        ("triton", ["intent-v1-1"]),
        (["intent-v1-1"], ["intent-v1-1"]),
    ],
)
def test_an_outage_sends_scrapes_to_a_listener_that_never_answers(rig: Rig, which: str | list[str], hit: list[str]) -> None:
    before = rig.addresses()
    assert sorted(rig.faults.telemetry_outage(which, 600)) == hit
    dark = rig.addresses()
    assert sorted(name for name in dark if dark[name] != before[name]) == hit
    host, port = dark[hit[0]].split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    rig.faults.lift()
    assert rig.addresses() == before


def test_an_outage_ends_by_itself_and_hits_targets_that_come_later(rig: Rig) -> None:
    before = rig.addresses()
    rig.faults.telemetry_outage("triton", 0.5)
    late = Target("127.0.0.1:3", "intent-v1-2", "triton", "intent", "stable", 1)
    rig.targets.set("late", [late])
    assert rig.addresses()["intent-v1-2"] != late.address
    assert wait_for(lambda: rig.addresses() == before | {"intent-v1-2": late.address})


def test_an_outage_of_nothing_is_refused(rig: Rig) -> None:
    with pytest.raises(Missing, match="no target matches nobody: there are intent-v1-1, gateway"):
        rig.faults.telemetry_outage("nobody", 5)

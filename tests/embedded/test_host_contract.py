"""The fleet host passes the suite of every actuator: the local actuator over HTTP, on real (small) replica processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autoscaler.actuators.contract import ActuatorContract, Subject
from autoscaler.actuators.local import LocalActuator
from embedded.host.fleet import FleetHost, Ports
from embedded.host.server import HostServer
from embedded.host.targets import TargetsFile
from embedded.supervisor import Supervisor

pytestmark = pytest.mark.integration  # real processes, seconds each

FAKE = Path(__file__).with_name("fake_replica.py")


@dataclass
class FakeProcess:
    given: Ports
    env: dict[str, str] = field(default_factory=dict)
    shm_prefix: str = "trimtab_fake_"

    @property
    def argv(self) -> list[str]:
        return [sys.executable, str(FAKE), str(self.given.http), str(self.given.metrics), "1"]

    @property
    def ready_url(self) -> str:
        return f"http://127.0.0.1:{self.given.http}/ready"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.given.metrics}/metrics"


class TestFleetHost(ActuatorContract):
    @pytest.fixture
    def subject(self, tmp_path: Path) -> Iterator[Subject]:
        with Supervisor(tmp_path / "logs") as supervisor:
            targets = TargetsFile(tmp_path / "targets.json")
            host = FleetHost(
                "intent",
                supervisor,
                lambda name, version, given: FakeProcess(given),
                lambda pools, http_ports: None,
                targets,
                tmp_path / "gpus.json",
            )
            server = HostServer({"intent": host})
            with LocalActuator(server.url) as actuator:
                yield Subject(actuator, "intent", time.sleep, patience=30.0)
            server.close()
            host.close()
            targets.close()

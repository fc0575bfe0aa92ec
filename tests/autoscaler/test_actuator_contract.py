"""The actuator suite over the fleet in memory, and over the local actuator that speaks real HTTP to a host of such a fleet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from autoscaler.actuators.contract import ActuatorContract, Subject
from autoscaler.actuators.local import LocalActuator
from autoscaler.actuators.memory import MemoryActuator
from trimtab.errors import SettingsError, Unavailable
from trimtab.messages import FleetPlan, PoolPlan


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


class TestMemoryActuator(ActuatorContract):
    @pytest.fixture
    def subject(self) -> Iterator[Subject]:
        clock = Clock()
        yield Subject(MemoryActuator(clock), "intent", clock.wait)


class Host(BaseHTTPRequestHandler):
    """The fleet host's HTTP contract over a fleet in memory."""

    fleet: MemoryActuator
    broken: bytes | None = None

    def do_GET(self) -> None:
        self._answer(200, self.broken or msgspec.json.encode(self.fleet.observe(self.path.rsplit("/", 1)[1])))

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self.fleet.apply(msgspec.json.decode(body, type=FleetPlan))
        except SettingsError as error:
            return self._answer(400, str(error).encode())
        self._answer(202, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[tuple[str, type[Host], Clock]]:
    clock = Clock()
    handler = type("Handler", (Host,), {"fleet": MemoryActuator(clock)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler, clock
    server.shutdown()
    server.server_close()
    thread.join()


class TestLocalActuator(ActuatorContract):
    @pytest.fixture
    def subject(self, host: tuple[str, type[Host], Clock]) -> Iterator[Subject]:
        url, _, clock = host
        with LocalActuator(url) as actuator:
            yield Subject(actuator, "intent", clock.wait)

    def test_nonsense_is_unavailable(self, host: tuple[str, type[Host], Clock]) -> None:
        url, handler, _ = host
        handler.broken = b"<html>"
        with LocalActuator(url) as actuator, pytest.raises(Unavailable, match="nonsense"):
            actuator.observe("intent")

    def test_a_host_that_is_away_is_unavailable(self) -> None:
        plan = FleetPlan(fleet="intent", decision="x", pools=[PoolPlan(version=1, role="stable", replicas=1, weight=100)])
        with LocalActuator("http://127.0.0.1:9", timeout_seconds=1) as actuator:
            with pytest.raises(Unavailable, match="does not answer"):
                actuator.observe("intent")
            with pytest.raises(Unavailable, match="does not answer"):
                actuator.apply(plan)

    @pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://127.0.0.1"])
    def test_a_wrong_address_is_a_settings_error(self, url: str) -> None:
        with pytest.raises(SettingsError), LocalActuator(url) as actuator:
            actuator.observe("intent")

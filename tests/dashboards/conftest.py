"""Real webhook receivers on loopback that behave badly when told to, and small messages to tell of."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from trimtab.messages import Decision, Finding


@dataclass
class Received:
    """One request as it came in, and the status it was answered with."""

    at: float
    headers: dict[str, str]
    raw: bytes
    status: int

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Hook:
    """A webhook receiver. `answers` are used up one by one, then `status` counts; `delay` seconds pass before each answer."""

    status: int = 200
    delay: float = 0.0
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b"{}"
    received: list[Received] = field(default_factory=list)
    port: int = 0
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def accepted(self) -> list[Received]:
        return [each for each in self.received if 200 <= each.status < 300]

    def start(self) -> Hook:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                status = hook.answers.pop(0) if hook.answers else hook.status
                headers = {name.lower(): value for name, value in self.headers.items()}
                hook.received.append(Received(time.time(), headers, raw, status))
                time.sleep(hook.delay)
                try:
                    self.send_response(status)
                    for name, value in hook.headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(hook.content)))
                    self.end_headers()
                    self.wfile.write(hook.content)
                except OSError:
                    pass  # it did not wait for the answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait(self, count: int, seconds: float = 30.0) -> list[Received]:
        """Waits until `count` requests were accepted; returns all that were."""
        eventually(lambda: len(self.accepted) >= count, seconds, lambda: f"{len(self.accepted)} of {count} accepted")
        return self.accepted


def eventually(true: Callable[[], bool], seconds: float = 30.0, what: Callable[[], str] = lambda: "it did not happen") -> None:
    """Waits until it is `true`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what()
        time.sleep(0.01)


@pytest.fixture
def hook() -> Iterator[Callable[..., Hook]]:
    """Starts receivers: ``hook(status=500)``."""
    made: list[Hook] = []

    def make(**behaviour: Any) -> Hook:
        made.append(Hook(**behaviour).start())
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def finding() -> Callable[..., Finding]:
    """`finding(id, time, **others)`: a version regression of version 3 that fires."""

    def make(id: str, time: float, **others: Any) -> Finding:
        usual: dict[str, Any] = {
            "fleet": "intent", "version": 3, "kind": "version_regression", "severity": "critical", "onset": time,
            "state": "firing", "confidence": 0.95, "summary": "version 3 is slower",
        }  # fmt: skip
        return Finding(id=id, time=time, **(usual | others))

    return make


@pytest.fixture
def decision() -> Callable[..., Decision]:
    """`decision(id, time, **others)`: an applied rollback of version 3."""

    def make(id: str, time: float, **others: Any) -> Decision:
        usual: dict[str, Any] = {
            "fleet": "intent", "action": "rollback", "version": 3, "outcome": "applied", "reason": "version 3 is slower",
        }  # fmt: skip
        return Decision(id=id, time=time, **(usual | others))

    return make

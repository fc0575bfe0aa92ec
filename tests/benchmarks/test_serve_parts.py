"""The clients of `trimtab bench serve`, and what its kinds of serving are made of."""

from __future__ import annotations

import http.server
import json
import math
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serve.load import Measured, measure
from benchmarks.serve.stage import Kind, _exchange
from benchmarks.suite.serve import _ratio, _within


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    bodies: Counter[bytes]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies[body] += 1
        self.send_response(500 if body == b"bad" else 200)
        self.send_header("Content-Length", "70000")
        self.end_headers()
        self.wfile.write(b"x" * 70_000)  # more than one packet

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.bodies = Counter()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_clients_ask_one_after_the_other_and_count_what_comes(server: Server) -> None:
    seen = measure(f"http://127.0.0.1:{server.server_port}", "/", [b"one", b"bad", b"two"], 3, 0.3, 0.0)
    assert set(seen.statuses) == {200, 500}
    assert len(seen.times) == seen.statuses.total()
    assert 0 < seen.quantile(0.5) <= seen.quantile(0.99)
    assert server.bodies.keys() == {b"one", b"bad", b"two"}
    assert max(server.bodies.values()) - min(server.bodies.values()) <= 3
    assert not _within(seen), "an error is no answer in time"


def test_a_broken_connection_is_counted_and_not_waited_for() -> None:
    seen = Measured(1, 1.0, statuses=Counter({200: 5, 0: 1}), times=[0.01] * 5)
    assert not _within(seen)
    assert seen.per_second == 5
    assert math.isnan(Measured(1, 1.0).quantile(0.5))


def test_unknown_rates_have_no_ratio() -> None:
    assert _ratio({"a": 3.0, "b": 2.0}, "a", "b") == 1.5
    assert _ratio({"a": 3.0, "b": None}, "a", "b") is None
    assert _ratio({"a": 3.0}, "a", "b") is None


def test_files_are_exchanged_beside_the_published_ones_and_never_in_them(tmp_path: Path) -> None:
    published, own = tmp_path / "published", tmp_path / "own"
    published.mkdir()
    own.mkdir()
    (published / "batches.py").write_text("published")
    (published / "manifest.json").write_text(json.dumps({"files": {"batches.py": "1", "model.py": "2"}}))
    for file in published.iterdir():
        (own / file.name).symlink_to(file)
    _exchange(Kind("x", "int8"), own, 2)
    assert all(file.is_symlink() for file in own.iterdir())
    _exchange(Kind("x", "torch", grouped=False), own, 2)
    assert "One group" in (own / "batches.py").read_text()
    assert "torch" in (own / "network.py").read_text()
    assert json.loads((own / "manifest.json").read_text())["files"] == {"model.py": "2"}
    assert (published / "batches.py").read_text() == "published"

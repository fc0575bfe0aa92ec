"""A Flink cluster elsewhere, through its REST API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from detectors import cluster


class Flink(ThreadingHTTPServer):
    """Answers as Flink's REST API does; a cancelled job is CANCELED at the next look."""

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[str, str]] = {}
        self.vertices: list[str] = []
        self.cancelled: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Flink

    def do_GET(self) -> None:
        if self.path == "/jobs/overview":
            jobs = [{"jid": job, "name": name, "state": state} for job, (name, state) in self.server.jobs.items()]
            self._answer({"jobs": jobs})
        else:
            self._answer({"vertices": [{"status": status} for status in self.server.vertices]})

    def do_PATCH(self) -> None:
        job = self.path.split("/")[2].split("?")[0]
        self.server.cancelled.append(job)
        self.server.jobs[job] = (self.server.jobs[job][0], "CANCELED")
        self._answer({})

    def _answer(self, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def flink() -> Iterator[Flink]:
    server = Flink()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_only_jobs_of_that_name_that_still_run_are_cancelled(flink: Flink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    flink.jobs = {
        "a": ("trimtab-detectors", "RESTARTING"),
        "b": ("trimtab-detectors", "FAILED"),
        "c": ("somebody-else", "RUNNING"),
    }
    cluster.make_room(flink.address, "trimtab-detectors")
    assert flink.cancelled == ["a"]


def test_a_job_processes_when_all_its_tasks_run(flink: Flink) -> None:
    flink.vertices = ["RUNNING", "INITIALIZING"]
    assert not cluster.processes(flink.address, "a")
    flink.vertices = ["RUNNING", "RUNNING"]
    assert cluster.processes(flink.address, "a")


def test_a_cluster_that_does_not_answer_processes_nothing(flink: Flink) -> None:
    flink.shutdown()
    flink.server_close()
    assert not cluster.processes(flink.address, "a")

"""Says over HTTP whether the job processes, so that a supervisor can wait for it and restart it."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

STALE_SECONDS = 15.0
"""A beat comes each second; a restart of the job's tasks takes a few. Longer silence means that nothing is processed."""


@dataclass
class Health:
    """What is known of the job. `state` is Flink's word; the heartbeat is a file that the Python worker rewrites each second."""

    heartbeat: Path
    state: str = "STARTING"
    restored: str | None = None

    def beat_age(self, now: float) -> float | None:
        """Seconds since a heartbeat came through the whole chain; None when none came yet."""
        try:
            return now - float(self.heartbeat.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def report(self, now: float) -> tuple[bool, dict[str, object]]:
        """Whether the job processes, and what to show."""
        age = self.beat_age(now)
        healthy = self.state == "RUNNING" and age is not None and age < STALE_SECONDS
        return healthy, {"healthy": healthy, "state": self.state, "heartbeat_age_seconds": age, "restored": self.restored}


def serve(health: Health, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """Answers every GET on `host:port` (0 takes a free one) with 200 when healthy, else 503; JSON either way.

    ``/metrics`` is this process's Prometheus page, healthy or not.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                return self._answer(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))
            healthy, report = health.report(time.time())
            return self._answer(200 if healthy else 503, "application/json", json.dumps(report).encode())

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every second; they are not news."""

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server

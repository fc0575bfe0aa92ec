"""The fleet host over HTTP, on loopback unless told: GET and PUT /v1/fleets/{fleet}. Errors come as words in plain text."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec

from embedded.host.fleet import FleetHost
from embedded.host.reconcile import InvalidPlan
from trimtab.messages import FleetPlan

LARGEST_PLAN_BYTES = 1_000_000
PREFIX = "/v1/fleets/"


class HostServer:
    """Serves fleets until `close`; `url` is where."""

    def __init__(self, fleets: Mapping[str, FleetHost], port: int = 0, address: str = "127.0.0.1") -> None:
        class Handler(_Handler):
            hosts = fleets

        self._server = ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fleet-host", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hosts: Mapping[str, FleetHost] = {}
    timeout = 10.0

    def do_GET(self) -> None:
        if (host := self._host()) is not None:
            self._answer(200, msgspec.json.encode(host.observe()), "application/json")

    def do_PUT(self) -> None:
        if (host := self._host()) is None:
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            return self._answer(411, b"A plan needs a Content-Length.")
        if not 0 <= length <= LARGEST_PLAN_BYTES:
            return self._answer(413, f"A plan of {length} bytes is too large.".encode())
        try:
            host.apply(msgspec.json.decode(self.rfile.read(length), type=FleetPlan))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return self._answer(400, f"This is not a plan: {error}.".encode())
        except InvalidPlan as error:
            return self._answer(400, str(error).encode())
        self._answer(202, b"")

    def _host(self) -> FleetHost | None:
        host = self.hosts.get(self.path.removeprefix(PREFIX)) if self.path.startswith(PREFIX) else None
        if host is None:
            known = ", ".join(PREFIX + name for name in sorted(self.hosts))
            self._answer(404, f"There is no {self.path}, only {known}.".encode())
        return host

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked did not wait for the answer
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet: the supervisor's terminal is not a web server's log."""

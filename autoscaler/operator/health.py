"""`/healthz` and `/readyz` for the kubelet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def serve(port: int, host: str, ready: Callable[[], bool]) -> int:
    """Answers 200 to ``/healthz``, and to ``/readyz`` 200 or 503 as `ready` says; returns the port (0: any free one)."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fine = self.path == "/healthz" or (self.path == "/readyz" and ready())
            body = b"ok\n" if fine else b"not ready\n"
            self.send_response(200 if fine else 503 if self.path == "/readyz" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Probes are not worth a line."""

    server = ThreadingHTTPServer((host, port), Answer)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return int(server.server_port)

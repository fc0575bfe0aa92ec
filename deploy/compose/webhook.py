"""A receiver of notifications to learn from: checks the signature of each, keeps the newest, and shows them at GET /.

Needs nothing but Python. POST /notifications is for `trimtab notify`, signed; POST /alerts for Alertmanager, which signs nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SECRET = Path("/secrets/webhook")
OLDEST_SECONDS = 300.0
LARGEST_BYTES = 1_000_000
received: deque[dict[str, object]] = deque(maxlen=200)


def is_signed(headers: dict[str, str], body: bytes, secret: str, now: float) -> bool:
    """Whether `webhook-signature` is right for this id, time and body, and the time not long ago."""
    id, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (sent.isascii() and sent.isdigit()) or abs(now - int(sent)) > OLDEST_SECONDS:
        return False
    key = base64.b64decode(secret.strip().removeprefix("whsec_"))
    right = b"v1," + base64.b64encode(hmac.new(key, f"{id}.{sent}.".encode() + body, hashlib.sha256).digest())
    return any(hmac.compare_digest(right, given.encode()) for given in headers.get("webhook-signature", "").split())


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        self.answer(200, json.dumps(list(received), indent=1))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= LARGEST_BYTES:
            return self.answer(413, "too large, or nothing")
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        signed = is_signed(headers, body, SECRET.read_text(), time.time())
        if self.path == "/notifications" and not signed:
            return self.answer(401, "the signature is wrong")
        try:
            said = json.loads(body)
        except ValueError:
            return self.answer(400, "not JSON")
        received.append({"path": self.path, "id": headers.get("webhook-id"), "signed": signed, "time": time.time(), "body": said})
        print(f"{self.path} signed={signed} {json.dumps(said)[:300]}", flush=True)
        self.answer(204, "")

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", 9095), Handler).serve_forever()  # noqa: S104 (the container publishes it on loopback)

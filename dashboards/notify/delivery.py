"""One attempt to hand a payload to a receiver over HTTP, and what its answer means."""

from __future__ import annotations

import contextlib
import email.utils
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx
import msgspec

from dashboards.notify import signing
from dashboards.notify.settings import Receiver
from trimtab.errors import SettingsError

Verdict = Literal["delivered", "again", "never"]

_NEVER = {400, 410, 413, 414, 415, 422}
"""Answers about the message itself: the same message gets the same answer. Everything else may be cured meanwhile."""

_ANSWER_LONGEST = 65_536
_WAIT_LONGEST = 300.0
"""A receiver may ask for a pause (Retry-After), but not for a longer one, in seconds."""


@dataclass(frozen=True)
class Answer:
    """What became of one attempt, in words without any secret; `wait`: seconds that the receiver asked for; `body`: its JSON."""

    verdict: Verdict
    words: str
    wait: float | None = None
    body: Mapping[str, object] | None = None


class Sender:
    """Sends to one receiver. Not for several threads at once."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver, self._address = receiver, receiver.address
        # A redirect could carry a signed message to somebody else: it is an error, in words.
        self._client = httpx.Client(
            timeout=receiver.timeout_seconds, follow_redirects=False, verify=_trusted(receiver.ca_file), trust_env=False
        )

    def send(self, body: bytes, content_type: str, id: str | None, more: Mapping[str, str] | None = None) -> Answer:
        """One attempt. `id` is the idempotency key; without it nothing is signed."""
        try:
            headers = self._headers(body, content_type, id) | dict(more or {})
        except (OSError, ValueError) as error:
            return Answer("again", f"the secret or token cannot be used: {_reason(error)}")
        deadline = time.monotonic() + self._receiver.timeout_seconds
        try:
            with self._client.stream("POST", self._address, content=body, headers=headers) as response:
                return self._judge(response, _read(response, deadline))
        except httpx.TimeoutException:
            return Answer("again", f"no answer within {self._receiver.timeout_seconds:g} s")
        except httpx.InvalidURL:
            return Answer("never", "the url is not valid")
        except httpx.HTTPError as error:
            return Answer("again", f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Lets go of connections."""
        self._client.close()

    def _headers(self, body: bytes, content_type: str, id: str | None) -> dict[str, str]:
        receiver = self._receiver
        headers = {"content-type": content_type, "user-agent": "trimtab-notify", "accept-encoding": "identity"}
        if receiver.token_file:
            headers["authorization"] = f"Bearer {_secret(receiver.token_file)}"
        if id is None:
            return headers
        now = int(time.time())
        headers |= {"webhook-id": id, "webhook-timestamp": str(now), "idempotency-key": id}
        if receiver.secret_file:
            headers["webhook-signature"] = signing.sign(signing.key_of(_secret(receiver.secret_file)), id, now, body)
        return headers

    def _judge(self, response: httpx.Response, content: bytes) -> Answer:
        status = response.status_code
        if 200 <= status < 300:
            return self._accepted(content)
        if 300 <= status < 400:
            where = _shown(response.headers.get("location", "nowhere"))
            return Answer("never", f"answered {status}, a redirect to {where}: not followed; set the url to where it should go")
        words = f"answered {status} {response.reason_phrase}".strip()
        return Answer("never" if status in _NEVER else "again", words, _wait(response.headers.get("retry-after")))

    def _accepted(self, content: bytes) -> Answer:
        body: object = None
        with contextlib.suppress(msgspec.DecodeError):
            body = msgspec.json.decode(content)
        said = body if isinstance(body, dict) else None
        if self._receiver.channel is not None and (said is None or said.get("ok") is not True):
            # Slack's API answers 200 to everything and says in the body what it thinks.
            return Answer("again", f"Slack refused: {(said or {}).get('error', 'no JSON in the answer')}")
        return Answer("delivered", "delivered", body=said)


def _read(response: httpx.Response, deadline: float) -> bytes:
    """The answer's first bytes; a receiver that dribbles is not waited for: its status is known."""
    content = b""
    with contextlib.suppress(httpx.HTTPError):
        for piece in response.iter_raw():
            content += piece
            if len(content) >= _ANSWER_LONGEST or time.monotonic() > deadline:
                break
    return content[:_ANSWER_LONGEST]


def _trusted(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{ca_file}: no certificates can be read from it: {error}") from error


def _secret(file: Path) -> str:
    text = file.read_bytes().strip()
    if not text.isascii() or not text or not text.decode("ascii").isprintable():
        raise ValueError(f"{file} must hold one line of ASCII text")
    return text.decode("ascii")


def _reason(error: Exception) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)


def _shown(location: str) -> str:
    """Whereto a redirect leads, as far as nothing in it can be a secret."""
    try:
        parts = urlsplit(location)
        return f"{parts.scheme}://{parts.hostname}" if parts.hostname else "another path"
    except ValueError:
        return "something that is no address"


def _wait(retry_after: str | None) -> float | None:
    if retry_after is None:
        return None
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), _WAIT_LONGEST)
    try:
        then = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return min(max(0.0, then.timestamp() - time.time()), _WAIT_LONGEST)

"""Signatures as the Standard Webhooks specification says: HMAC-SHA256 over ``{id}.{timestamp}.{body}``.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

_PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: base64 after ``whsec_``, any other text as it is. Raises `ValueError`, without it."""
    secret = secret.strip()
    if not secret:
        raise ValueError("the secret is empty")
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"what follows {_PREFIX} in the secret is not base64") from None
    if not key:
        raise ValueError("the secret is empty")
    return key


def sign(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """The value of the header ``webhook-signature``. `timestamp` is that of the attempt, in unix seconds."""
    mac = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(mac.digest()).decode()}"


def verify(key: bytes, id: str, timestamp: str, body: bytes, signatures: str, now: float, tolerance: float = 300.0) -> bool:
    """Whether one of the space-separated `signatures` is right and the attempt not older (or newer) than `tolerance` seconds."""
    if not timestamp.isascii() or not timestamp.isdigit() or abs(now - int(timestamp)) > tolerance:
        return False
    expected = sign(key, id, int(timestamp), body).encode()
    return any(hmac.compare_digest(expected, given.encode()) for given in signatures.split(" "))

"""Where requests go, and in which words: the protocol, the pinned version, adapters, what proves who asks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from trimtab.errors import Missing, SettingsError

PIN_HEADER = "x-trimtab-pin-version"
ONCE_HEADER = {"x-trimtab-retry": "never"}
"""For what counts something: the gateway is not to try it twice."""

Protocol = Literal["http", "grpc"]
_SCHEMES: dict[str, tuple[Protocol, bool]] = {
    "http": ("http", False),
    "https": ("http", True),
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go and how long the client waits. `max_in_flight` bounds memory: beyond it a request counts as an error.

    `url` is `http://`, `https://`, `grpc://` or `grpcs://` with host and port. `pin` asks the gateway for one version.
    With `adapters`, each request asks for one of them, drawn by popularity: the k-th with weight k to the power of -`skew`.
    """

    url: str
    model: str
    timeout: float = 20.0
    max_in_flight: int = 5000
    pin: int | None = None
    adapters: tuple[str, ...] = ()
    skew: float = 0.0
    feedback_after: float | None = None
    """Seconds after an answer at which its version is told the right label. None: never."""
    token_file: Path | None = None
    """Holds the bearer token, which so appears in no list of processes and no log."""
    ca_file: Path | None = None
    """Certificates (PEM) to believe in place of the system's."""

    @property
    def infer_url(self) -> str:
        return f"{self.url.rstrip('/')}/v2/models/{self.model}/infer"

    @property
    def feedback_model(self) -> str:
        """The model that takes the labels that become known later."""
        return f"{self.model}_feedback"

    @property
    def feedback_url(self) -> str:
        return f"{self.url.rstrip('/')}/v2/models/{self.feedback_model}/infer"

    @property
    def protocol(self) -> Protocol:
        return self._scheme()[0]

    @property
    def encrypted(self) -> bool:
        return self._scheme()[1]

    @property
    def authority(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    def check(self) -> None:
        """Raises SettingsError for a URL that is none of these, Missing for a file that is not there."""
        self._scheme()
        if not self.authority or (self.protocol == "grpc" and urlsplit(self.url).port is None):
            raise SettingsError(f"--url {self.url}: a host is missing, or with grpc its port, as in grpc://127.0.0.1:8001")
        self.headers()
        self.certificates()

    def headers(self) -> dict[str, str]:
        """What each request carries besides its body. Holds the token: not to be logged."""
        found = {} if self.pin is None else {PIN_HEADER: str(self.pin)}
        if self.token_file:
            token = _read(self.token_file).decode("ascii", "replace").strip()
            if not token or not token.isprintable() or " " in token:
                raise SettingsError(f"{self.token_file} holds no bearer token")
            found["authorization"] = f"Bearer {token}"
        return found

    def certificates(self) -> bytes | None:
        found = _read(self.ca_file) if self.ca_file else None
        if found is not None and b"-----BEGIN CERTIFICATE-----" not in found:
            raise SettingsError(f"{self.ca_file} holds no certificate (PEM)")
        return found

    def _scheme(self) -> tuple[Protocol, bool]:
        try:
            return _SCHEMES[urlsplit(self.url).scheme]
        except (KeyError, ValueError):
            raise SettingsError(f"--url {self.url}: starts with none of {', '.join(f'{name}://' for name in _SCHEMES)}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Missing(f"{path}: cannot be read: {error.strerror}") from error

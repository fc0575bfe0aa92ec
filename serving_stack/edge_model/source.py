"""Where a replica gets adapters from: the model repository as a folder, or the same folder behind HTTP. Standard library only."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 10.0


class Away(OSError):
    """The adapter's files cannot be had now; says why."""


class Source:
    """`place` is a path, or an address that begins with http:// or https://; below it lies `<adapter>/<version>/<file>`."""

    def __init__(self, place: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._place, self._timeout = place.rstrip("/"), timeout
        self._remote = place.startswith(("http://", "https://"))

    def fetch(self, name: str, version: int, files: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
        """The content of the named files, each at most as long as it was published (then it is not checked). Raises `Away`."""
        return {file: self._read(f"{name}/{version}/{file}", int(about["bytes"])) for file, about in files.items()}

    def _read(self, path: str, size: int) -> bytes:
        where = f"{self._place}/{path}"
        try:
            if self._remote:
                with urllib.request.urlopen(where, timeout=self._timeout) as answer:  # noqa: S310 (the scheme is checked)
                    content: bytes = answer.read(size + 1)
            else:
                with Path(where).open("rb") as opened:
                    content = opened.read(size + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Away(f"{where} cannot be read: {error}") from error
        return content

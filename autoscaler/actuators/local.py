"""The actuator for one machine: HTTP to the fleet host, which runs the processes and writes the gateway's files."""

from __future__ import annotations

from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx

from trimtab.codec import decode_as, encode
from trimtab.errors import SettingsError, Unavailable, Undecodable
from trimtab.messages import FleetPlan, FleetState


class LocalActuator:
    """Speaks ``/v1/fleets/{fleet}`` to the fleet host at `url`. Not for several threads at once; a context manager."""

    def __init__(self, url: str, timeout_seconds: float = 5.0) -> None:
        self._url = url.rstrip("/")
        try:
            self._client = httpx.Client(base_url=self._url, timeout=timeout_seconds, trust_env=False)
        except httpx.InvalidURL as error:
            raise SettingsError(f"'{url}' is not the address of a fleet host: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the connections."""
        self._client.close()

    def observe(self, fleet: str) -> FleetState:
        """See `Actuator`."""
        answer = self._request("GET", fleet)
        try:
            return decode_as(FleetState, answer.content)
        except Undecodable as error:
            raise Unavailable(f"the fleet host at {self._url} answers nonsense: {error}") from error

    def apply(self, plan: FleetPlan) -> None:
        """See `Actuator`."""
        self._request("PUT", plan.fleet, encode(plan))

    def _request(self, method: str, fleet: str, body: bytes | None = None) -> httpx.Response:
        try:
            answer = self._client.request(
                method, f"/v1/fleets/{quote(fleet, safe='')}", content=body, headers={"Content-Type": "application/json"}
            )
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise SettingsError(f"'{self._url}' is not the address of a fleet host: {error}") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"the fleet host at {self._url} does not answer: {error or type(error).__name__}") from error
        words = answer.text.strip()[:500]
        if answer.status_code in (400, 404, 409, 411, 413, 422):
            raise SettingsError(f"the fleet host refuses ({answer.status_code}): {words}")
        if answer.is_error or answer.is_redirect:
            raise Unavailable(f"the fleet host at {self._url} fails ({answer.status_code}): {words}")
        return answer

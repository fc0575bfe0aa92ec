"""One request and what became of it, whatever the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from serving_stack.traffic.questions import Question, is_version
from serving_stack.traffic.target import Target


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a client got: version and label, or an error in words. `assigned` and `attempts` are what the gateway says."""

    version: str = ""
    label: str = ""
    error: str | None = None
    assigned: str | None = None
    attempts: int = 1


class Client(Protocol):
    """Asks one target. `close` gives up what is open."""

    async def ask(self, question: Question, adapter: str | None) -> Reply:
        """Asks once and waits as long as the target's timeout. Never raises for what a server does."""
        ...

    async def tell(self, version: str, answers: Sequence[tuple[str, str]]) -> str | None:
        """Tells `version` what it answered and what would have been right. An error in words, or None. Never raises either."""
        ...

    async def close(self) -> None: ...


def connect(target: Target) -> Client:
    """A client for the target's protocol, within a running event loop. Raises SettingsError or Missing."""
    target.check()
    if target.protocol == "grpc":
        from serving_stack.traffic.client_grpc import GrpcClient

        return GrpcClient(target)
    from serving_stack.traffic.client_http import HttpClient

    return HttpClient(target)


def gateway_says(headers: Mapping[str, str]) -> tuple[str | None, int]:
    """The version that the gateway's weights chose, if it says so, and how many tries there were."""
    assigned = headers.get("x-trimtab-assigned", "")
    tries = headers.get("x-envoy-attempt-count", "1")
    return assigned if is_version(assigned) else None, int(tries) if is_version(tries) else 1


def too_late(target: Target) -> str:
    return f"no answer within {target.timeout:g} s"

"""Clients that each send the next request when the answer to the last one is there: over plain sockets, in one thread.

A general HTTP client costs more processor time per request than the model does; this one about 50 microseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

_END = b"\r\n\r\n"


@dataclass
class Measured:
    """What came of a load: seconds per answer in order of arrival, HTTP statuses, and how long it lasted."""

    clients: int
    seconds: float
    times: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def per_second(self) -> float:
        """Good answers."""
        return self.statuses[200] / self.seconds

    def quantile(self, share: float) -> float:
        """Seconds; NaN without an answer."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class _Client(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], measured: Measured, over: asyncio.Future[None]) -> None:
        self._requests, self._measured, self._over = requests, measured, over
        self._transport: asyncio.Transport
        self._received = b""
        self._sent = 0.0
        self.counts = False
        self.stops = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def _next(self) -> None:
        if self.stops:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(_END)
        if not end or len(body) < _length(head):
            return
        self._received = b""
        if self.counts:
            self._measured.times.append(time.perf_counter() - self._sent)
            self._measured.statuses[int(head[9:12])] += 1
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.stops:
            self._measured.statuses[0] += 1
        if not self._over.done():
            self._over.set_result(None)


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    if not found:
        raise ValueError("an answer without a length")
    return int(rest.partition(b"\r\n")[0])


def measure(url: str, path: str, bodies: Sequence[bytes], clients: int, seconds: float, settle: float) -> Measured:
    """Run `clients` clients against `url` (http://host:port) for `settle` seconds that do not count, then `seconds` that do.

    Status 0 counts connections that broke. All clients together go through `bodies` in order, over and over.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: "
    requests = cycle([f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies])
    measured = Measured(clients, seconds)
    asyncio.run(_run(host, int(port), requests, measured, settle))
    return measured


async def _run(host: str, port: int, requests: Iterator[bytes], measured: Measured, settle: float) -> None:
    loop = asyncio.get_running_loop()
    started: list[_Client] = []
    over: list[asyncio.Future[None]] = []
    for _ in range(measured.clients):
        over.append(loop.create_future())
        _, client = await loop.create_connection(lambda: _Client(requests, measured, over[-1]), host, port)
        started.append(client)
    await asyncio.sleep(settle)
    begin = time.perf_counter()
    for client in started:
        client.counts = True
    await asyncio.sleep(measured.seconds)
    measured.seconds = time.perf_counter() - begin
    for client in started:
        client.counts, client.stops = False, True
    await asyncio.wait(over, timeout=10)

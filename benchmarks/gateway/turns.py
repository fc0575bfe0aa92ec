"""Clients that cost as little as can be, and requests in turns, so that what the machine does meanwhile falls on all alike."""

from __future__ import annotations

import gc
import random
import socket
import statistics
import time
from collections.abc import Callable, Mapping
from types import TracebackType


class HttpClient:
    """One connection that is kept, and one request at a time, without a library in between."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """The answer with its headers, whole. Raises ConnectionError when there is none, ValueError when it is not a 200."""
        self._socket.sendall(request)
        answer = self._more(b"")
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer = self._more(answer)
        headers = answer[:end].lower()
        start = headers.find(b"content-length:")
        length = int(headers[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        while len(answer) < end + 4 + length:
            answer = self._more(answer)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ValueError(answer.decode(errors="replace"))
        return answer

    def _more(self, before: bytes) -> bytes:
        if not (more := self._socket.recv(65536)):
            raise ConnectionError("the server closed the connection in the middle of an answer")
        return before + more


def http_request(path: str, body: bytes | None = None) -> bytes:
    """A request as it is sent: POST with a body, GET without."""
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + (body or b"")


def in_turns(asks: Mapping[str, Callable[[], object]], count: int, seed: int = 1) -> dict[str, list[float]]:
    """Seconds of each of `count` calls per name; every round calls each once, in an order that is drawn."""
    order, lots = list(asks), random.Random(seed)
    taken: dict[str, list[float]] = {name: [] for name in asks}
    for name in order * 20:
        asks[name]()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(count):
            lots.shuffle(order)
            for name in order:
                began = time.perf_counter()
                asks[name]()
                taken[name].append(time.perf_counter() - began)
    finally:
        if collecting:
            gc.enable()
    return taken


def added(straight: list[float], through: list[float], part: float, blocks: int = 10) -> float:
    """By how much a percentile of `through` is over that of `straight`: the median over blocks of calls in turns.

    One stall of the machine is in one block, and does not decide.
    """
    size = max(1, len(straight) // blocks)
    found = [
        share(sorted(through[start : start + size]), part) - share(sorted(straight[start : start + size]), part)
        for start in range(0, size * min(blocks, len(straight)), size)
    ]
    return statistics.median(found)


def share(ordered: list[float], part: float) -> float:
    """A percentile of sorted values."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]

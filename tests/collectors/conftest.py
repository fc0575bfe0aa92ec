"""Real servers that behave well or badly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Seen:
    """Where a server listens and what it saw."""

    address: str
    connections: int = 0
    open: int = 0
    most_open: int = 0
    requests: int = 0


Serve = Callable[[Handler], AbstractAsyncContextManager[Seen]]


@asynccontextmanager
async def _serving(handler: Handler) -> AsyncIterator[Seen]:
    """A raw TCP server on a free loopback port; `handler` gets each connection."""
    tasks: set[asyncio.Task[None]] = set()
    seen = Seen("")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        seen.connections += 1
        seen.open += 1
        seen.most_open = max(seen.most_open, seen.open)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            seen.open -= 1
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    seen.address = f"{host}:{port}"
    try:
        yield seen
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def serve() -> Serve:
    return _serving


@pytest.fixture
def pages() -> Callable[..., Handler]:
    """A handler that answers every request on kept-alive connections with the bytes of `body()`."""

    def make(body: Callable[[], bytes], head: str = "HTTP/1.1 200 OK\r\n", end: str = "") -> Handler:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                page = body()
                writer.write(f"{head}{end}Content-Length: {len(page)}\r\n\r\n".encode() + page)
                await writer.drain()

        return handler

    return make

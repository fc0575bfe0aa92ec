"""Scrapes of real servers that misbehave in every way of the list: always a Snapshot, never late, never too much."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from collectors.clock import Clock
from collectors.discovery import Target
from collectors.scrape import SCRAPES, Scraper
from collectors.settings import CollectSettings
from trimtab.codec import encode
from trimtab.messages import Snapshot

# A loaded machine must not make a good target look slow; those that never answer are given up sooner.
SETTINGS = CollectSettings(interval_seconds=10, max_body_bytes=100_000, max_series=1000)
QUICK = CollectSettings(interval_seconds=0.5, max_body_bytes=100_000)
OK = b"HTTP/1.1 200 OK\r\n"


def target(address: str, name: str = "intent-v1-1") -> Target:
    return Target(name, f"http://{address}/metrics", "intent", "triton", "stable", 1)


def scrape(address: str, times: int = 1, settings: CollectSettings = SETTINGS) -> Coroutine[Any, Any, list[Snapshot]]:
    async def run() -> list[Snapshot]:
        async with Scraper(settings, Clock()) as scraper:
            return [await scraper.scrape(target(address)) for _ in range(times)]

    return run()


def failed(snapshot: Snapshot, words: str, reason: str) -> None:
    assert not snapshot.up
    assert snapshot.series == {}
    assert words in (snapshot.error or "")
    assert SCRAPES.labels("triton", reason)._value.get() > 0
    assert len(encode(snapshot)) < 2000


def against(serve: Any, handler: Any, times: int = 1, settings: CollectSettings = SETTINGS) -> tuple[list[Snapshot], Any]:
    async def run() -> tuple[list[Snapshot], Any]:
        async with serve(handler) as seen:
            return await scrape(seen.address, times, settings), seen

    return asyncio.run(run())


def raw(data: bytes, *, hold: bool = False) -> Any:
    """Answers each connection's first request with these bytes, then closes (or holds on for ever)."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()
        if hold:
            await asyncio.sleep(3600)

    return handler


def test_a_good_page_over_a_kept_connection(serve: Any, pages: Any) -> None:
    value = 0

    def page() -> bytes:
        nonlocal value
        value += 1
        return f'# TYPE nv_a counter\nnv_a{{version="1",model="intent"}} {value}\nother 1\n'.encode()

    before = time.time()
    snapshots, seen = against(serve, pages(page), times=3)
    assert [snapshot.series for snapshot in snapshots] == [{'nv_a{model="intent",version="1"}': float(n)} for n in (1, 2, 3)]
    assert seen.connections == 1
    first = snapshots[0]
    assert (first.target, first.fleet, first.role, first.pool, first.version) == ("intent-v1-1", "intent", "triton", "stable", 1)
    assert first.up and first.error is None
    assert before - 1 <= first.time <= snapshots[1].time <= time.time()
    assert first.took > 0


@pytest.mark.parametrize(
    ("data", "words", "reason"),
    [
        (OK + b"Content-Length: 32\r\n\r\n<html><body>oops</body></html>\n\n", "line 1", "malformed"),
        (OK + b"Content-Length: 10\r\n\r\n\xff\xfe\xfd 12345\n", "not UTF-8", "malformed"),
        (OK + b'Content-Length: 22\r\n\r\nnv_a{x="1"} 1\nnv_a 1\x00\n', "line 2", "malformed"),
        (OK + b"Content-Length: 14\r\n\r\nnv_a 1\nnv_a 2\n", "second value for the same series", "malformed"),
        (OK + b"Content-Length: 0\r\n\r\n", "empty", "malformed"),
        (OK + b"Content-Length: 400\r\n\r\nnv_a 1\n", "broke off", "disconnect"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n7\r\nnv_a 1\n\r\n", "broke off", "disconnect"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nnv_a 1\n\r\n", "broke off", "disconnect"),
        (OK + b"\r\nnv_a 1\nnv_b 1", "cut off", "malformed"),
        (b"\x16\x03\x01 SSH-2.0-OpenSSH\r\n\r\n", "no HTTP", "disconnect"),
        (b"", "no HTTP", "disconnect"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/other\r\nContent-Length: 0\r\n\r\n", "a redirect to", "redirect"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7\r\n\r\nnv_a 1\n", "503 Service Unavailable", "status"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "204", "status"),
        (OK + b"X: " + b"a" * 300_000 + b"\r\n\r\n", "no HTTP", "disconnect"),
        (OK + b"Content-Length: 999999999999\r\n\r\n" + b"nv_a 1\n" * 20_000, "larger than 100000 bytes", "too_large"),
    ],
)
def test_answers_that_are_no_page(serve: Any, data: bytes, words: str, reason: str) -> None:
    snapshots, _ = against(serve, raw(data))
    failed(snapshots[0], words, reason)


def test_compressed_answers_are_refused_unread(serve: Any) -> None:
    bomb = gzip.compress(b"nv_a 1\n" * 10_000_000, 1)
    data = OK + f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb
    snapshots, _ = against(serve, raw(data))
    failed(snapshots[0], "encoding 'gzip'", "malformed")


def endless(chunk: bytes, pause: float) -> Any:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"\r\n")
        while True:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(pause)

    return handler


def test_an_endless_body_is_cut_off_by_its_size(serve: Any) -> None:
    snapshots, _ = against(serve, endless(b"nv_a 1\n" * 1000, 0))
    failed(snapshots[0], "larger than 100000 bytes", "too_large")


@pytest.mark.parametrize(
    "handler",
    [raw(b"", hold=True), raw(OK, hold=True), raw(OK + b"Content-Length: 14\r\n\r\nnv_a 1\n", hold=True), endless(b"n", 0.05)],
    ids=["never answers", "half a head", "half a body", "slow loris"],
)
def test_a_target_that_takes_too_long_is_given_up(serve: Any, handler: Any) -> None:
    snapshots, _ = against(serve, handler, settings=QUICK)
    failed(snapshots[0], "timed out: no whole answer within 0.4 s", "timeout")


def test_an_answer_that_a_stopped_process_reads_late_is_no_answer(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    get = Scraper._get

    async def stopped(self: Scraper, target: Target) -> tuple[bytes, str]:
        page = await get(self, target)
        time.sleep(0.45)  # as SIGSTOP does: no timer runs out meanwhile
        return page

    monkeypatch.setattr(Scraper, "_get", stopped)
    snapshots, _ = against(serve, raw(OK + b"Content-Length: 7\r\n\r\nnv_a 1\n"), settings=QUICK)
    failed(snapshots[0], "timed out", "timeout")


def test_nobody_listens() -> None:
    failed(asyncio.run(scrape("127.0.0.1:1"))[0], "cannot connect", "connect")


def test_a_million_series_are_refused(serve: Any, pages: Any) -> None:
    page = b"".join(b'nv_a{i="%d"} 1\n' % i for i in range(1_000_000))
    settings = CollectSettings(interval_seconds=10, max_body_bytes=100_000_000)
    snapshots, _ = against(serve, pages(lambda: page), settings=settings)
    failed(snapshots[0], "more than 80000 lines", "too_large")
    snapshots, _ = against(serve, pages(lambda: page), settings=CollectSettings(interval_seconds=10))
    failed(snapshots[0], "larger than 4194304 bytes", "too_large")


def test_a_page_too_big_for_a_message_is_refused(serve: Any, pages: Any) -> None:
    page = b"".join(b'nv_a{i="%d",j="%s"} 1\n' % (i, b"x" * 200) for i in range(9_000))
    snapshots, _ = against(serve, pages(lambda: page), settings=CollectSettings(interval_seconds=10))
    failed(snapshots[0], "9000 series make a message of", "too_large")


def test_a_kept_connection_that_was_closed_meanwhile_is_no_failure(serve: Any) -> None:
    async def one_page_then_close_unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 7\r\n\r\nnv_a 1\n")
        await reader.readuntil(b"\r\n\r\n")  # reads the second request and hangs up

    snapshots, seen = against(serve, one_page_then_close_unread, times=4)
    assert [snapshot.up for snapshot in snapshots] == [True] * 4
    assert seen.connections == 4


def test_a_failing_target_recovers_and_does_not_hold_up_another(serve: Any, pages: Any) -> None:
    async def run() -> None:
        bodies = [b"rubbish\n", b"nv_a 1\n"]
        async with (
            serve(pages(lambda: bodies.pop(0))) as flaky,
            serve(raw(b"", hold=True)) as hung,
            Scraper(CollectSettings(interval_seconds=2), Clock()) as scraper,
        ):
            stuck = asyncio.create_task(scraper.scrape(target(hung.address, "hung")))
            assert not (await scraper.scrape(target(flaky.address))).up
            assert (await scraper.scrape(target(flaky.address))).series == {"nv_a": 1.0}
            assert not stuck.done()
            failed(await stuck, "no whole answer", "timeout")
            scraper.forget_others([])
            assert not scraper._parsers and not scraper._failing

    asyncio.run(run())


class Hands:
    """Clocks moved by hand."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1000.0, 0.0

    def move(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def test_time_never_goes_back_and_catches_up() -> None:
    hands = Hands()
    clock = Clock(lambda: hands.wall, lambda: hands.monotonic)
    hands.move(1)
    assert clock.now() == 1001
    hands.wall -= 10
    times = []
    for _ in range(250):
        hands.move(1)
        times.append(clock.now())
    assert times[0] == pytest.approx(1001.95)
    steps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(0.94 < step < 1.06 for step in steps)
    assert times[-1] == hands.wall
    hands.wall += 3600
    assert clock.now() == hands.wall


def test_settings_refuse_what_makes_no_sense(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from trimtab.errors import SettingsError
    from trimtab.settings import load

    file = tmp_path / "trimtab.yaml"
    file.write_text("collect:\n  interval_seconds: 0\n  keep: {triton: [nv_]}\n")
    with pytest.raises(SettingsError, match=r"trimtab\.yaml:2: collect\.interval_seconds"):
        load(CollectSettings, file)
    monkeypatch.setenv("TRIMTAB_COLLECT_INTERVAL_SECONDS", "2")
    assert load(CollectSettings, file).interval_seconds == 2
    assert load(CollectSettings, file).keep == {"triton": ("nv_",)}

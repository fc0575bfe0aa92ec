"""The collector: file -> scrapes -> bus, with one trace per scrape, and an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from collectors.collector import Collector, phase
from collectors.discovery import Discovery
from collectors.settings import CollectSettings
from trimtab import tracing
from trimtab.errors import TrimtabError
from trimtab.memory_bus import MemoryBus
from trimtab.messages import TELEMETRY, Snapshot

SETTINGS = CollectSettings(interval_seconds=0.3, deadline_ratio=0.95)


def group(address: str, name: str, role: str = "triton") -> dict[str, object]:
    return {"targets": [address], "labels": {"fleet": "intent", "role": role, "target": name, "pool": "stable", "version": "1"}}


def snapshots(bus: MemoryBus) -> dict[str, list[Snapshot]]:
    found: dict[str, list[Snapshot]] = {}
    for record in bus.consumer([TELEMETRY], group=None).poll(0):
        assert isinstance(record.message, Snapshot)
        found.setdefault(record.message.target, []).append(record.message)
    return found


@contextlib.asynccontextmanager
async def running(file: Path, bus: MemoryBus) -> AsyncIterator[asyncio.Task[int]]:
    collector = Collector(SETTINGS, Discovery(file), bus)
    task = asyncio.create_task(collector.run())
    try:
        yield task
    finally:
        collector.stop()
        with contextlib.suppress(TrimtabError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def test_phases_are_spread_and_stable() -> None:
    phases = sorted(phase(f"intent-v1-{i}", 1.0) for i in range(100))
    assert all(0 <= moment < 1 for moment in phases)
    assert max(later - earlier for earlier, later in itertools.pairwise(phases)) < 0.2
    assert phase("gateway", 2.0) == 2 * phase("gateway", 1.0)


@pytest.mark.integration
def test_good_bad_and_changing_targets(tmp_path: Path, serve: Any, pages: Any) -> None:
    file, bus = tmp_path / "targets.json", MemoryBus()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    async def run() -> int:
        count = itertools.count(1)
        async with (
            serve(pages(lambda: b"nv_a %d\n" % next(count))) as good,
            serve(pages(lambda: b"<html>\n")) as garbage,
            serve(hang) as hung,
            running(file, bus) as task,
        ):
            await asyncio.sleep(0.1)  # no file yet
            file.write_text(
                json.dumps([group(good.address, "good"), group(garbage.address, "garbage"), group(hung.address, "hung")])
            )
            await until(lambda: len(snapshots(bus)) == 3 and all(len(seen) >= 3 for seen in snapshots(bus).values()))
            assert good.connections == 1
            file.write_text("[{")  # goes on with what it knows
            have = len(snapshots(bus)["good"])
            await until(lambda: len(snapshots(bus)["good"]) > have + 3)
            file.write_text(json.dumps([group(good.address, "renamed")]))
            await until(lambda: "renamed" in snapshots(bus))
            have = len(snapshots(bus)["good"])
            await until(lambda: len(snapshots(bus)["renamed"]) > 3)
            assert len(snapshots(bus)["good"]) == have
        return await task

    assert asyncio.run(run()) == 0
    seen = snapshots(bus)
    values = [snapshot.series["nv_a"] for snapshot in seen["good"]]
    assert values == sorted(values, key=float) and all(snapshot.up for snapshot in seen["good"])  # type: ignore[arg-type]
    assert all(not snapshot.up and "line 1" in (snapshot.error or "") for snapshot in seen["garbage"])
    assert all(not snapshot.up and "no whole answer" in (snapshot.error or "") for snapshot in seen["hung"])
    for line in seen.values():
        moments = [snapshot.time for snapshot in line]
        assert moments == sorted(set(moments))


@pytest.mark.integration
def test_a_bus_away_for_a_while_gets_everything_afterwards(tmp_path: Path, serve: Any, pages: Any) -> None:
    file, bus = tmp_path / "targets.json", MemoryBus(away=True)
    scraped: list[int] = []

    def page() -> bytes:
        scraped.append(len(scraped))
        return b"nv_a %d\n" % scraped[-1]

    async def run() -> int:
        async with serve(pages(page)) as good:
            file.write_text(json.dumps([group(good.address, "good")]))
            async with running(file, bus) as task:
                await until(lambda: len(scraped) > 5)
                assert snapshots(bus) == {}
                bus.away = False
            return await task

    assert asyncio.run(run()) == 0
    delivered = [snapshot.series["nv_a"] for snapshot in snapshots(bus)["good"]]
    assert len(delivered) >= 5
    assert delivered == [float(number) for number in scraped[: len(delivered)]]
    assert len(scraped) - len(delivered) <= 1  # the one that was under way when it stopped


def test_each_snapshot_carries_its_trace(tmp_path: Path, serve: Any, pages: Any) -> None:
    file, bus, spans = tmp_path / "targets.json", MemoryBus(), tmp_path / "spans.jsonl"
    tracing.setup("collector", spans)

    async def run() -> None:
        async with serve(pages(lambda: b"nv_a 1\n")) as good:
            file.write_text(json.dumps([group(good.address, "good")]))
            async with running(file, bus):
                await until(lambda: len(snapshots(bus).get("good", [])) >= 3)

    asyncio.run(run())
    parents = [record.headers["traceparent"].decode() for record in bus.consumer([TELEMETRY], group=None).poll(0)]
    assert len(set(parents)) == len(parents)
    assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[13]", parent) for parent in parents)


def test_a_dead_spool_ends_the_collector_loudly(tmp_path: Path, serve: Any, pages: Any) -> None:
    class Mad(MemoryBus):
        def producer(self) -> Any:
            raise RuntimeError("a bug")

    async def run() -> None:
        file = tmp_path / "targets.json"
        async with serve(pages(lambda: b"nv_a 1\n")) as good:
            file.write_text(json.dumps([group(good.address, "good")]))
            await Collector(SETTINGS, Discovery(file), Mad()).run()

    with pytest.raises(TrimtabError, match="cannot deliver"):
        asyncio.run(run())


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "trimtab", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.integration
def test_the_replay_command_serves_and_stops() -> None:
    process = start("replay-gpu", "--port", "0", "--gpus", "1")
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        url = re.search(r"http://\S+", said)
        assert url, said
        with urllib.request.urlopen(url.group()) as answer:
            assert b"DCGM_FI_DEV_XID_ERRORS" in answer.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.integration
def test_the_collect_command_without_a_broker_keeps_scraping_and_says_what_it_could_not_deliver(tmp_path: Path) -> None:
    targets, config = tmp_path / "targets.json", tmp_path / "trimtab.yaml"
    targets.write_text(json.dumps([group("127.0.0.1:1", "gone")]))
    config.write_text(
        "collect: {interval_seconds: 0.2, stop_seconds: 0.5}\nkafka: {bootstrap: '127.0.0.1:1', timeout_seconds: 1}\n"
    )
    process = start("collect", "--targets", str(targets), "--config", str(config))
    try:
        assert process.stdout is not None
        url = re.search(r"http://\S+", process.stdout.readline())
        assert url

        def metrics() -> str:
            with urllib.request.urlopen(url.group()) as answer:
                return str(answer.read().decode())

        async def scraped() -> None:
            await until(lambda: re.search(r"trimtab_collect_spool_snapshots [2-9]", metrics()) is not None)

        asyncio.run(scraped())
        assert 'trimtab_collect_scrapes_total{result="connect",role="triton"}' in metrics()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
        _, said = process.communicate()
        assert "snapshots that the bus has not taken" in said
        assert "gone (http://127.0.0.1:1/metrics) cannot be scraped: cannot connect" in said
        assert "Traceback" not in said
    finally:
        process.kill()
        process.communicate()


@pytest.mark.integration
def test_wrong_files_are_refused_in_one_line(tmp_path: Path) -> None:
    targets = tmp_path / "targets.json"
    targets.write_text('[{"targets": ["a:1"], "labels": {"role": "app"}}]')
    process = start("collect", "--targets", str(targets))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.strip().splitlines()[-1] == f"trimtab: {targets}:1: 0.labels.fleet: missing"


@pytest.mark.integration
def test_a_taken_metrics_port_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start("collect", "--targets", str(tmp_path / "t.json"), "--metrics-port", str(port))
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.strip().splitlines()[-1].startswith(f"trimtab: cannot listen on 127.0.0.1:{port}: Address already in use")

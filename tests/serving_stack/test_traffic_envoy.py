"""Traffic through a real Envoy to small upstreams, and the command as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from serving_stack.gateway import GatewayPool
from serving_stack.traffic import Files, Plan, Progress, Result, Run, Segment, Surge, Target, arrival_times
from serving_stack.traffic.generator import DROPPED, Generator
from serving_stack.traffic.questions import banking77
from trimtab.errors import Unavailable

pytestmark = pytest.mark.integration

QUESTIONS = banking77(1)
LABELS = {json.loads(q.body)["inputs"][0]["data"][0]: q.label for q in QUESTIONS}
# The way a text is written in the body of its request, which is all that the small upstream looks at.
WRITTEN = {json.dumps(text, ensure_ascii=False)[1:-1]: label for text, label in LABELS.items()}


def pools(a: Any, b: Any) -> tuple[GatewayPool, GatewayPool]:
    return (
        GatewayPool(version=1, role="stable", weight=50, endpoints=(a.at,)),
        GatewayPool(version=2, role="canary", weight=50, endpoints=(b.at,)),
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_request_is_sent_judged_and_written_down(gateway: Callable[..., Any], upstream: Any, tmp_path: Path) -> None:
    plan = Plan(seed=1, duration=4, warmup=1, segments=(Segment(rate=40),), surges=(Surge(at=2, factor=3, lasts=1),))
    files = Files(
        log=tmp_path / "log",
        requests=tmp_path / "deep/requests",
        histograms=tmp_path / "traffic.hlog",
        summary=tmp_path / "summary.json",
    )
    seen: list[Progress] = []

    async def scene() -> tuple[dict[str, Any], Run]:
        a, b = upstream(1, labels=WRITTEN), upstream(2, "wrong")
        async with gateway(*pools(a, b), upstreams=(a, b)) as g:
            run = Run(plan, Target(url=g.url, model="intent"), QUESTIONS, time.time() + 1.2, files, seen.append)
            return await run.run(asyncio.Event()), run

    summary, run = asyncio.run(scene())
    times = arrival_times(plan)
    assert summary["sent"] == summary["ended"] == (times >= 0).sum()
    assert summary["warmup_requests"] == (times < 0).sum() > 0
    assert summary["errors"] == summary["unfinished"] == 0
    assert set(summary["versions"]) == {"1", "2"}
    assert summary["versions"]["1"]["wrong"] == summary["versions"]["2"]["ok"] == 0
    assert summary["versions"]["1"]["ok"] > 20 < summary["versions"]["2"]["wrong"]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary

    requests = lines(tmp_path / "deep/requests")
    assert sorted(r["at"] for r in requests) == pytest.approx(times.tolist(), abs=1e-4)
    assert all(r["latency"] > 0 and r["assigned"] == r["version"] for r in requests)
    log = lines(tmp_path / "log")
    assert sum(line["sent"] for line in log if line["version"] is None) == len(times)
    assert sum(line["wrong"] for line in log if line["version"] == "2") == sum(r["outcome"] == "wrong" for r in requests)

    histogram = HdrHistogram(1, 3_600_000_000, 3)
    reader = HistogramLogReader(str(tmp_path / "traffic.hlog"), histogram)
    intervals = iter(reader.get_next_interval_histogram, None)
    by_tag = Counter[str | None]()
    for interval in intervals:
        by_tag[interval.get_tag()] += interval.get_total_count()
    answered = Counter(r["version"] for r in requests)
    assert by_tag == {None: len(times), "v1": answered["1"], "v2": answered["2"]}

    assert sum(progress.second["sent"] for progress in seen) == len(times)  # type: ignore[misc]
    assert seen[-1].end == 4 and seen[-1].total["ended"] == summary["ended"]

    value = run.metrics.registry.get_sample_value
    outcomes = Counter((r["version"], r["outcome"]) for r in requests)
    for (version, outcome), count in outcomes.items():
        assert value("trimtab_traffic_requests_total", {"version": version, "outcome": outcome}) == count
    assert value("trimtab_traffic_latency_seconds_count", {"version": "1"}) == outcomes["1", "ok"]
    assert value("trimtab_traffic_scheduled_total") == len(times)


def test_a_failing_version_is_noticed_though_no_request_fails(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> dict[str, Any]:
        a, b = upstream(1, labels=WRITTEN), upstream(2, "fail")
        async with gateway(*pools(a, b), upstreams=(a, b)) as g:
            plan = Plan(duration=2, segments=(Segment(rate=50, arrivals="constant"),))
            return await Run(plan, Target(url=g.url, model="intent"), QUESTIONS, time.time(), Files()).run(asyncio.Event())

    summary = asyncio.run(scene())
    assert summary["errors"] == 0
    assert summary["versions"]["2"]["first_bad"] == summary["versions"]["2"]["first_retried"] is not None
    assert summary["versions"]["1"]["first_bad"] is None


def test_a_server_that_stops_answering_does_not_stop_the_clock(upstream: Any) -> None:
    """The proof of the open loop: requests go out on time, and latency counts from then."""
    plan = Plan(duration=3, segments=(Segment(rate=20, arrivals="constant"),))
    results: list[Result] = []

    async def scene() -> Generator:
        a = await upstream(1, "slow", labels=WRITTEN).start()
        a.delay = 1.0
        target = Target(url=f"http://127.0.0.1:{a.at[1]}", model="intent", max_in_flight=1000)
        generator = Generator(plan, target, QUESTIONS, time.time(), results.append)
        try:
            await generator.run(asyncio.Event())
        finally:
            await a.stop()
        return generator

    generator = asyncio.run(scene())
    assert generator.scheduled == len(results) == 59
    assert all(r.outcome == "ok" and r.latency >= 1.0 for r in results)


def test_errors_are_told_apart(upstream: Any) -> None:
    async def scene(mode: str, **limits: Any) -> Counter[str | None]:
        a = upstream(1, mode)
        if mode != "absent":
            await a.start()
        results: list[Result] = []
        target = Target(url=f"http://127.0.0.1:{a.at[1]}", model="intent", **limits)
        plan = Plan(duration=1, segments=(Segment(rate=20, arrivals="constant"),))
        try:
            await Generator(plan, target, QUESTIONS, time.time(), results.append).run(asyncio.Event())
        finally:
            await a.stop()
        assert all(r.outcome == "error" and r.version == "unknown" for r in results)
        return Counter(r.error for r in results)

    assert asyncio.run(scene("fail")) == {"HTTP 500": 19}
    assert asyncio.run(scene("absent")) == {"ClientConnectorError": 19}
    assert asyncio.run(scene("hang", timeout=0.3)) == {"no answer within 0.3 s": 19}
    dropped = asyncio.run(scene("hang", timeout=5.0, max_in_flight=4))
    assert dropped == {DROPPED: 15, "no answer within 5 s": 4}


def test_files_that_cannot_be_written_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = Target(url="http://127.0.0.1:1", model="intent")
    run = Run(Plan(segments=(Segment(rate=1),)), target, QUESTIONS, time.time(), Files(log=tmp_path / "file/log"))
    with pytest.raises(Unavailable, match="cannot write"):
        asyncio.run(run.run(asyncio.Event()))


COMMAND = [sys.executable, "-c", "from serving_stack.traffic_cli import traffic; traffic()"]


def test_the_command_runs_until_it_is_stopped(gateway: Callable[..., Any], upstream: Any, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("seed: 1\nsegments: [{at: 0, rate: 60, trace: azure-conv}]\nsurges: [{at: 1, factor: 2, for: 1}]\n")

    async def scene() -> None:
        a, b = upstream(1, labels=WRITTEN), upstream(2, labels=WRITTEN)
        async with gateway(*pools(a, b), upstreams=(a, b)) as g:
            port = _free_port()
            argv = [*COMMAND, "--url", g.url, "--plan", str(plan), "--metrics-port", str(port), "--summary", str(tmp_path / "s")]
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path.cwd())})
            try:
                await g.until(lambda: a.answered > 30)
                await asyncio.sleep(1.1)
                page = await asyncio.to_thread(_read, f"http://127.0.0.1:{port}/metrics")
                assert 'trimtab_traffic_requests_total{outcome="ok",version="1"}' in page
                assert "trimtab_traffic_in_flight" in page
                process.send_signal(signal.SIGTERM)
                out, _ = await asyncio.to_thread(process.communicate, timeout=20)
            finally:
                process.kill()
            assert process.returncode == 0
            summary = json.loads((tmp_path / "s").read_text())
            assert json.loads(out) == summary
            assert summary["ok"] > 30
            assert summary["wrong"] == summary["errors"] == 0
            assert summary["sent"] == summary["ended"] + summary["unfinished"]

    asyncio.run(scene())


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return str(response.read().decode())

"""Played incidents for a real Prometheus and the real exporter.

`recorded`: recorded pages of every target, and its messages on a real Kafka; a minute. `stack`: the whole stack with traffic,
a bad release and a hanging replica; some minutes. Tests take `played`, which is each of them in turn.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from benchmarks.prometheus_process import Prometheus
from detectors.health_metrics import HealthMetrics
from trimtab.bus import BusSettings, connect
from trimtab.codec import decode_as
from trimtab.messages import (
    FINDINGS,
    FLEETS,
    MODELS,
    SCORES,
    STATES,
    TELEMETRY,
    TOPICS,
    DetectorModel,
    FleetSpec,
    Message,
    Score,
    Snapshot,
)

DATA = Path(__file__).parent / "data" / "incident.json.xz"
DETECTORS = ("ensemble", "canary", "cnn_lstm", "history", "invariants", "isolation_forest", "peers")
SECONDS_PER_PAGE = 2.0
RECORDED_SECONDS_PER_PAGE = 5.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Played:
    """A Prometheus that has scraped an incident, from `start` to `end` (unix seconds)."""

    prometheus: Prometheus
    start: float
    end: float


class Pages:
    """Serves one set of recorded pages at a time, each target's under ``/<target>``, and keeps a targets file to them."""

    def __init__(self, folder: Path, captures: list[dict[str, Any]], extra: Callable[[], dict[str, bytes]]) -> None:
        self._captures, self._extra, self._at = captures, extra, 0
        self.targets_file = folder / "targets.json"
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = pages.page(self.path.removeprefix("/"))
                self.send_response(200 if body else 503)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # a scraper that is stopped does not wait
                    self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.show(0)

    def page(self, name: str) -> bytes | None:
        if (body := self._extra().get(name)) is not None:
            return body
        for page in self._captures[self._at]["pages"]:
            if name == _name(page["labels"]):
                return page["text"].encode() if page["text"] else None
        return None

    def show(self, at: int) -> None:
        self._at = at
        groups = [
            {"targets": [self.address], "labels": {**page["labels"], "__metrics_path__": f"/{_name(page['labels'])}"}}
            for page in self._captures[at]["pages"]
            if "part" not in page["labels"]
        ]
        half = self.targets_file.with_suffix(".half")
        half.write_text(json.dumps(groups))
        half.replace(self.targets_file)

    def targets(self) -> list[str]:
        return [page["labels"]["target"] for page in self._captures[self._at]["pages"] if page["labels"].get("role") == "triton"]

    def close(self) -> None:
        self._server.shutdown()


def _name(labels: dict[str, str]) -> str:
    return labels.get("target") or labels["part"]


def _health(folder: Path) -> dict[str, bytes]:
    """The page of a Flink job that beats now and has written a checkpoint."""
    heartbeat, checkpoint = folder / "heartbeat", folder / "checkpoints" / "run" / "chk-1" / "_metadata"
    heartbeat.write_text(f"{time.time()} 1")
    if not checkpoint.exists():
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_bytes(bytes.fromhex("4960672d"))
    registry = CollectorRegistry()
    registry.register(HealthMetrics(lambda: "RUNNING", heartbeat, folder / "checkpoints"))
    return {"detect": generate_latest(registry)}


@pytest.fixture(scope="module")
def recorded(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """The recorded incident, played two and a half times as fast."""
    _need_prometheus()
    folder = tmp_path_factory.mktemp("recorded")
    data = json.loads(lzma.decompress(DATA.read_bytes()))
    bus = connect(BusSettings(bootstrap=kafka))
    bus.ensure_topics()
    pages = Pages(folder, data["pages"], lambda: _health(folder))
    parts = {part: (pages.address, f"/{part}") for part in ("collect", "autoscale", "detect")}
    with _exporter(kafka) as port:
        parts["metrics"] = (f"127.0.0.1:{port}", "/metrics")
        prometheus = Prometheus(folder / "prometheus", free_port(), pages.targets_file, parts)
        try:
            prometheus.start()
            start = time.time()
            _play(bus, pages, data, start)
            time.sleep(6)  # the last rules
            yield Played(prometheus, start, time.time())
        finally:
            prometheus.stop()
            pages.close()


def _need_prometheus() -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")


@contextlib.contextmanager
def _exporter(kafka: str) -> Iterator[int]:
    """`trimtab metrics` as a process; its port. It ends with 0 on SIGTERM."""
    port = free_port()
    argv = [sys.executable, "-m", "trimtab", "metrics", "--kafka", kafka, "--port", str(port)]
    process = subprocess.Popen(argv, env=os.environ | {"TRIMTAB_METRICS_LAG_SECONDS": "1"})
    try:
        _wait_for(f"http://127.0.0.1:{port}/metrics", process)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        ended = process.wait(30)
    assert ended == 0


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(url, timeout=2)
            time.sleep(2)  # it serves before it reads
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError("the exporter does not answer")


def _play(bus: Any, pages: Pages, data: dict[str, Any], start: float) -> None:
    """Shows a page every two seconds and sends the messages of its time, with their times moved to now."""
    first = data["pages"][0]["time"]
    waiting = sorted(data["records"], key=lambda record: record["message"].get("time", 0.0))
    producer = bus.producer()
    reader = bus.consumer([TELEMETRY, FINDINGS], group="trimtab-autoscaler-intent")
    trained = DetectorModel(
        fleet="intent", path="/models/a", digest="a", trained_from=start - 90, trained_to=start - 60, time=start - 55
    )
    producer.send(MODELS, trained)
    for number, capture in enumerate(data["pages"]):
        pages.show(number)
        until = start + (number + 1) * SECONDS_PER_PAGE
        while time.time() < until:
            while waiting and waiting[0]["message"].get("time", 0.0) <= capture["time"]:
                record = waiting.pop(0)
                producer.send(record["topic"], _moved(record, first, start))
            if number > 0 and (
                last := [r for r in data["records"] if r["topic"] == STATES and r["message"]["time"] <= capture["time"]]
            ):
                producer.send(STATES, _moved(last[-1], first, start, now=True))
            for target in pages.targets():
                for index, detector in enumerate(DETECTORS):
                    score = 0.999 if target.startswith("intent-v3") else 0.1 * index + 0.05
                    producer.send(SCORES, Score(fleet="intent", target=target, time=time.time(), detector=detector, score=score))
            producer.send(
                TELEMETRY, Snapshot(target="gateway", fleet="intent", role="gateway", time=time.time(), took=0.01, up=True)
            )
            producer.flush()
            reader.poll(0.2)
            reader.commit()
            time.sleep(0.4)
    producer.close()
    reader.close()


def _moved(record: dict[str, Any], first: float, start: float, now: bool = False) -> Message:
    """A recorded message with its times moved from the recording to this play."""
    moved = dict(record["message"])
    for name in ("time", "onset"):
        if name in moved and record["topic"] != FLEETS:
            moved[name] = time.time() if now else start + (moved[name] - first) * SECONDS_PER_PAGE / RECORDED_SECONDS_PER_PAGE
    return decode_as(TOPICS[record["topic"]], msgspec.json.encode(moved))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """The whole stack: traffic, trained detectors, a slow version that is rolled back, a replica that hangs and is replaced."""
    from embedded.stack import Stack
    from serving_stack.fault import Fault

    _need_prometheus()
    folder = tmp_path_factory.mktemp("stack-queries")
    spec = FleetSpec(fleet="intent", model="intent", version=1, min_replicas=2, max_replicas=4, capacity_per_replica=30.0)
    with Stack(folder / "stack", spec, seed=1) as running, contextlib.ExitStack() as after:
        port = after.enter_context(_exporter(running.addresses["kafka"]))
        parts = {name: (_address(running.addresses[name]), "/metrics") for name in ("collect", "detect", "autoscale")}
        parts["metrics"] = (f"127.0.0.1:{port}", "/metrics")
        prometheus = Prometheus(folder / "prometheus", free_port(), folder / "stack" / "targets.json", parts)
        after.callback(prometheus.stop)
        prometheus.start()
        start = time.time()
        plan = folder / "plan.json"
        plan.write_text(json.dumps({"seed": 1, "segments": [{"at": 0, "rate": 25}]}))
        running.start_traffic(plan)
        time.sleep(40)
        running.start_training(ticks=30).wait_ended(120)
        running.release(2, Fault(kind="slow", seconds=0.2))
        _wait_for_decision(prometheus, "rollback")
        running.inject("hang", running.serving()[0])
        _wait_for_decision(prometheus, "quarantine")
        time.sleep(15)
        yield Played(prometheus, start, time.time())


def _address(url: str) -> str:
    return url.removeprefix("http://").partition("/")[0]


def _wait_for_decision(prometheus: Prometheus, action: str) -> None:
    deadline = time.monotonic() + 120
    while not prometheus.now(f'trimtab_fleet_decisions_total{{action="{action}", outcome="applied"}} > 0'):
        assert time.monotonic() < deadline, f"no {action} was decided"
        time.sleep(1)


@pytest.fixture(scope="module", params=["recorded", "stack"])
def played(request: pytest.FixtureRequest) -> Played:
    """Each of the two incidents in turn."""
    made: Played = request.getfixturevalue(request.param)
    return made

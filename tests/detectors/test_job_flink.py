"""The whole job on Flink's mini-cluster against a real broker: what goes in comes out, whatever breaks in between.

The tests share one broker and one job, which they restart in the order of this file.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from trimtab.bus import BusSettings, Record, connect
from trimtab.messages import FINDINGS, FLEETS, SCORES, TELEMETRY, Finding, Score, Snapshot

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

TRACE = "0af7651916cd43dd8448eb211c80319c"
TARGETS = ("intent-v1-1", "intent-v1-2", "intent-v1-3")


class Telemetry:
    """A fleet that is scraped each second, on a thread, until it is closed."""

    def __init__(self, bootstrap: str) -> None:
        self.bus = connect(BusSettings(bootstrap=bootstrap))
        self.bus.ensure_topics()
        self.down: set[str] = set()
        self.sending = threading.Event()
        self.sending.set()
        self._closed = threading.Event()
        self._producer = self.bus.producer()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        count = 0
        while not self._closed.wait(1.0):
            if not self.sending.is_set():
                continue
            count += 1
            for target in TARGETS:
                label = '{model="intent",version="1"}'
                up = target not in self.down
                series: dict[str, float | None] = {f"nv_inference_request_success{label}": 20.0 * count + len(target)}
                message = Snapshot(
                    target=target,
                    fleet="intent",
                    role="triton",
                    pool="stable",
                    version=1,
                    time=time.time(),
                    took=0.01,
                    up=up,
                    error=None if up else "connection refused",
                    series=series if up else {},
                )
                self._producer.send(TELEMETRY, message, {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01".encode()})
            self._producer.flush()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(15)
        self._producer.close()


class Job:
    """`trimtab detect run` as a child process."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        from embedded import java

        self.bootstrap, self.folder, self.jars = bootstrap, folder, java.flink_jars()
        self.log = folder / "stderr.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def start(self) -> dict[str, Any]:
        """Starts it, waits until it is healthy, and returns what it then says of itself."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        argv = [sys.executable, "-m", "trimtab", "detect", "run", "--kafka", self.bootstrap, "--jars", str(self.jars)]
        argv += ["--checkpoints", str(self.folder / "checkpoints"), "--log-dir", str(self.folder / "logs")]
        argv += ["--health-port", str(self.port), "--spans", str(self.folder / "spans.jsonl")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        return until(self.healthy, "the job is healthy", seconds=300)

    def healthy(self) -> dict[str, Any] | None:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=2) as answer:
                report: dict[str, Any] = json.load(answer)
                return report
        except (urllib.error.URLError, OSError):
            return None

    def end(self, number: int) -> list[psutil.Process]:
        """Sends the signal; returns the children it had, once they have all gone."""
        if self.process is None or self.process.poll() is not None:
            return []
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        self.process.wait(30)
        _, alive = psutil.wait_procs(children, timeout=15)
        for child in alive:
            child.kill()
        assert not alive, f"left behind: {alive}"
        return children

    def checkpoints(self) -> list[Path]:
        from detectors import checkpoints

        return checkpoints.completed(self.folder / "checkpoints")


def until(what: Callable[[], Any], words: str, seconds: float = 60.0) -> Any:
    """The first true value of `what`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:.0f} s: {words}")


class Reader:
    """Everything that came on some topics since it was made."""

    def __init__(self, bootstrap: str, *topics: str) -> None:
        self._consumer = connect(BusSettings(bootstrap=bootstrap)).consumer(topics, group=None, start="latest")
        self.records: list[Record] = []

    def read(self) -> list[Record]:
        self.records += self._consumer.poll(0.2)
        return self.records

    def findings(self) -> list[Record]:
        return [record for record in self.read() if isinstance(record.message, Finding)]

    def scores(self) -> list[Record]:
        return [record for record in self.read() if isinstance(record.message, Score)]


class Poison:
    """Numbered garbage: each must come back on the rejected topic, so it bears witness of what was read and written."""

    def __init__(self, bootstrap: str) -> None:
        from kafka import KafkaConsumer, KafkaProducer, TopicPartition

        self._producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
        self._consumer = KafkaConsumer(bootstrap_servers=bootstrap)
        topic = f"{TELEMETRY}.rejected"
        partitions = [TopicPartition(topic, n) for n in until(lambda: self._consumer.partitions_for_topic(topic), "the topic")]
        self._consumer.assign(partitions)
        self._consumer.seek_to_end(*partitions)
        for partition in partitions:
            self._consumer.position(partition)
        self.sent: set[bytes] = set()
        self.came: dict[bytes, dict[str, bytes]] = {}

    def send(self, count: int) -> None:
        for _ in range(count):
            value = b"\xff not json %d" % len(self.sent)
            self.sent.add(value)
            self._producer.send(TELEMETRY, key=b"poison", value=value)
        self._producer.flush()

    def all_came(self) -> bool:
        for batch in self._consumer.poll(timeout_ms=200).values():
            self.came |= {record.value: dict(record.headers) for record in batch}
        return self.sent <= set(self.came)

    def close(self) -> None:
        self._producer.close()
        self._consumer.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("job")


@pytest.fixture(scope="module")
def broker(make_broker: Callable[[Path], Any], folder: Path) -> Iterator[Any]:
    """Of this file's own, because it is restarted."""
    running = make_broker(folder / "kafka")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def telemetry(broker: Any) -> Iterator[Telemetry]:
    running = Telemetry(broker.bootstrap)
    yield running
    running.close()


@pytest.fixture(scope="module")
def job(broker: Any, telemetry: Telemetry, folder: Path) -> Iterator[Job]:
    running = Job(broker.bootstrap, folder)
    running.start()
    yield running
    running.end(signal.SIGTERM)


@pytest.fixture
def poison(broker: Any, telemetry: Telemetry) -> Iterator[Poison]:
    made = Poison(broker.bootstrap)
    yield made
    made.close()


def test_snapshots_become_scores_and_findings_of_the_same_trace(job: Job, telemetry: Telemetry) -> None:
    reader = Reader(job.bootstrap, SCORES, FINDINGS)
    scores = until(reader.scores, "scores")
    telemetry.down = {"intent-v1-3"}
    found = until(
        lambda: [r for r in reader.findings() if r.message.target == "intent-v1-3" and r.message.state == "firing"],
        "a finding about the replica that went down",
    )
    assert found[0].message.kind == "replica_fault"
    for record in (scores[0], found[0]):
        assert record.headers["traceparent"].decode().split("-")[1] == TRACE
    spans = until(lambda: (job.folder / "spans.jsonl").read_text().splitlines(), "spans")
    assert {json.loads(line)["trace"] for line in spans} == {TRACE}
    # The finding continues the job's own span, which continues the scrape's.
    assert found[0].headers["traceparent"].decode().split("-")[2] in {json.loads(line)["span"] for line in spans}


def test_poison_and_snapshots_from_the_future_are_rejected_and_the_stream_goes_on(job: Job, poison: Poison) -> None:
    from trimtab.codec import encode

    poison.send(3)
    future = encode(Snapshot(target="t", fleet="intent", role="triton", time=time.time() + 3600, took=0.1, up=True))
    poison.sent.add(future)
    poison._producer.send(TELEMETRY, key=b"t", value=future)
    until(poison.all_came, "the rejected messages")
    assert b"not a Snapshot" in poison.came[b"\xff not json 0"]["reason"]
    assert b"in the future" in poison.came[future]["reason"]
    reader = Reader(job.bootstrap, SCORES)
    assert until(reader.scores, "scores after the poison")


def test_a_forgotten_fleet_is_dropped_and_begins_anew_when_it_speaks_again(job: Job, telemetry: Telemetry) -> None:
    reader = Reader(job.bootstrap, FINDINGS, SCORES)

    def about_the_fault(state: str) -> set[str]:
        found = [r.message for r in reader.read() if isinstance(r.message, Finding) and r.message.kind == "replica_fault"]
        return {finding.id for finding in found if finding.state == state}

    before = set(until(lambda: about_the_fault("firing"), "the finding that still holds"))
    producer = connect(BusSettings(bootstrap=job.bootstrap)).producer()
    producer.forget(FLEETS, "intent")
    producer.close()
    telemetry.down = set()
    began = time.time()  # it answers again, and must have been seen to before it fails
    until(
        lambda: any(r.message.target == "intent-v1-3" and r.message.time > began + 5 for r in reader.scores()),
        "scores of the fleet that began anew, all of it",
    )
    telemetry.down = {"intent-v1-3"}
    until(lambda: about_the_fault("firing") - before, "the next fault is another finding")
    assert not about_the_fault("resolved") & before  # nobody is left who knows of the first
    assert job.healthy()


def test_a_broker_restart_loses_nothing(job: Job, broker: Any, telemetry: Telemetry, poison: Poison) -> None:
    telemetry.sending.clear()
    time.sleep(1.5)  # a flush under way ends
    poison.send(50)
    broker.stop()
    time.sleep(2)
    broker.start()
    poison.send(50)
    telemetry.sending.set()
    until(poison.all_came, "everything that was sent around the restart", seconds=90)
    reader = Reader(job.bootstrap, SCORES)
    assert until(reader.scores, "scores after the restart")
    assert job.healthy()


def test_a_killed_job_goes_on_from_its_checkpoint_and_repeats_no_new_finding(
    job: Job, telemetry: Telemetry, poison: Poison
) -> None:
    reader = Reader(job.bootstrap, FINDINGS)

    def about_the_fault() -> set[str]:
        return {r.message.id for r in reader.findings() if r.message.kind == "replica_fault" and r.message.state == "firing"}

    before = until(about_the_fault, "the finding that still holds")
    newest = job.checkpoints()[0]
    until(lambda: job.checkpoints()[0] != newest, "another checkpoint", seconds=30)
    poison.send(20)
    assert job.end(signal.SIGKILL), "a JVM and a worker ran, and went with it"
    poison.send(20)

    report = job.start()
    assert report["restored"], "it says which checkpoint it restored"
    until(poison.all_came, "everything that was sent around the kill")
    seen = len(reader.read())
    until(lambda: len(reader.findings()) > seen + 2, "the finding goes on after the restart", seconds=60)
    assert about_the_fault() == before


def test_a_damaged_checkpoint_is_said_and_left_behind(job: Job, poison: Poison, telemetry: Telemetry) -> None:
    until(job.checkpoints, "a checkpoint")
    assert job.end(signal.SIGTERM)
    for checkpoint in job.checkpoints():
        metadata = checkpoint / "_metadata"
        os.truncate(metadata, metadata.stat().st_size // 2)
    poison.send(20)

    report = job.start()
    assert report["restored"] is None
    assert "cannot be used" in job.log.read_text()
    until(poison.all_came, "everything sent meanwhile, read from Kafka's offsets")

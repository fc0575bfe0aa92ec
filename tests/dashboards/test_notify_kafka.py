"""The command against a real broker: killed in the middle, a receiver away for a while, dead letters redelivered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trimtab.bus import BusSettings, Producer, connect
from trimtab.messages import DECISIONS, FINDINGS

Make = Callable[..., Any]
INCIDENTS = 40


class Command:
    """`trimtab notify` as a process that may be killed and started again with the same settings."""

    def __init__(self, folder: Path, bootstrap: str, receivers: dict[str, str], **more: object) -> None:
        lines = ["kafka:", f"  bootstrap: {bootstrap}", "notify:", "  receivers:"]
        for name, url in receivers.items():
            fields = {"name": name, "format": "cloudevents", "url": url, "max_per_minute": 6000, "retry_limit_seconds": 1} | more
            lines.append("    - {" + ", ".join(f"{key}: {value!r}" for key, value in fields.items()) + "}")
        self.config = folder / f"{uuid.uuid4().hex}.yaml"
        self.config.write_text("\n".join(lines) + "\n")
        self.log = (folder / "notify.log").open("ab")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        argv = [sys.executable, "-m", "trimtab", "notify", "--config", str(self.config)]
        self.process = subprocess.Popen(argv, stdout=self.log, stderr=self.log)

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(40)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "trimtab", "notify", *arguments, "--config", str(self.config)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120)


@pytest.fixture
def command(kafka: str, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    connect(BusSettings(bootstrap=kafka)).ensure_topics()
    made: list[Command] = []

    def make(receivers: dict[str, str], bootstrap: str = kafka, **more: object) -> Command:
        # A name of its own for each test: the place of a receiver in the stream goes by its name.
        made.append(Command(tmp_path, bootstrap, receivers, **more))
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            each.process.kill()
            each.process.wait(10)


@pytest.fixture
def producer(kafka: str) -> Iterator[Producer]:
    made = connect(BusSettings(bootstrap=kafka)).producer()
    yield made
    made.close()


def mine(hook: Any, fleet: str) -> list[Any]:
    return [each for each in hook.accepted if each.body["data"]["incident"]["fleet"] == fleet]


@pytest.mark.integration
def test_killed_in_the_middle_each_incident_is_one_thread_and_nothing_is_lost_or_told_twice(
    command: Make, producer: Producer, hook: Make, finding: Make, decision: Make
) -> None:
    fleet, name = f"kill {uuid.uuid4().hex[:6]}/🚀", uuid.uuid4().hex[:8]
    there = hook(delay=0.05)
    notifier = command({name: there.url}, fleets=[fleet])
    notifier.start()
    kills = 0
    for number in range(INCIDENTS):
        now, found = time.time(), f"{name}-{number}"
        about = {"fleet": fleet, "version": number}
        producer.send(FINDINGS, finding(found, now, **about))
        producer.send(DECISIONS, decision(f"d{found}", now + 0.01, because=[found], **about))
        producer.send(FINDINGS, finding(found, now + 0.02, **about))  # said again, as it is while it fires
        producer.send(FINDINGS, finding(found, now + 0.03, **about, state="resolved"))
        producer.flush()
        if number in (10, 25):
            there.wait(len(there.accepted) + 3, 60)  # in the midst of delivering
            notifier.kill()
            kills += 1
            notifier.start()
        time.sleep(0.05)
    _until(lambda: len({each.headers["webhook-id"] for each in mine(there, fleet)}) >= 3 * INCIDENTS, 120)
    time.sleep(1)
    told: dict[str, Any] = {}
    repeats = 0
    for each in mine(there, fleet):
        id = each.headers["webhook-id"]
        repeats += id in told
        assert told.setdefault(id, each).raw == each.raw  # what is told again is the same, under the same id
    # A kill between the receiver's answer and its record can repeat the one delivery that was under way, and no other.
    assert repeats <= kills
    threads: dict[str, list[str]] = {}
    for each in told.values():
        threads.setdefault(each.body["subject"], []).append(each.body["type"].rpartition(".")[2])
    assert len(threads) == INCIDENTS
    for happenings in threads.values():
        assert sorted(happenings) == ["act", "finding", "resolved"]
    assert notifier.stop() == 0


@pytest.mark.integration
def test_a_receiver_that_was_away_gets_all_of_it_in_order_while_another_is_served(
    command: Make, producer: Producer, hook: Make, finding: Make
) -> None:
    fleet, name = f"away-{uuid.uuid4().hex[:6]}", uuid.uuid4().hex[:8]
    away, good = hook(), hook()
    away.stop()
    notifier = command({f"{name}-away": away.url, f"{name}-good": good.url}, fleets=[fleet])
    notifier.start()
    for number in range(30):
        producer.send(FINDINGS, finding(f"{name}-{number}", time.time(), fleet=fleet, version=number))
    producer.flush()
    good.wait(30, 60)
    assert away.accepted == []
    notifier.kill()  # the queue is the topic: it survives the notifier as well
    away.start()
    notifier.start()
    away.wait(30, 60)
    assert [each.body["data"]["finding"]["version"] for each in mine(away, fleet)] == list(range(30))
    assert len(mine(good, fleet)) <= 31


@pytest.mark.integration
def test_dead_letters_are_listed_and_redelivered(command: Make, producer: Producer, hook: Make, finding: Make) -> None:
    fleet, name = f"dead-{uuid.uuid4().hex[:6]}", uuid.uuid4().hex[:8]
    there = hook(status=410)
    notifier = command({name: there.url}, fleets=[fleet])
    notifier.start()
    for number in range(3):
        producer.send(FINDINGS, finding(f"{name}-{number}", time.time(), fleet=fleet, version=number))
    producer.flush()
    _until(lambda: len(there.received) == 3, 60)
    assert notifier.stop() == 0
    listed = notifier.run("redeliver", "--receiver", name, "--dry-run")
    assert listed.stdout.count("answered 410 Gone") == 3, listed.stderr
    failed = notifier.run("redeliver", "--receiver", name)
    assert (failed.returncode, "0 delivered, 3 left" in failed.stdout) == (1, True)
    there.status = 200
    done = notifier.run("redeliver", "--receiver", name)
    assert (done.returncode, "3 delivered, 0 left" in done.stdout) == (0, True), done.stderr
    assert [each.body["data"]["finding"]["version"] for each in there.accepted] == [0, 1, 2]
    assert "0 dead letters" in notifier.run("redeliver", "--receiver", name).stdout


def _until(true: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.integration
def test_a_broker_that_is_restarted_costs_no_update_and_repeats_none(
    make_broker: Make, command: Make, hook: Make, finding: Make, tmp_path: Path
) -> None:
    broker = make_broker(tmp_path / "kafka")
    bus = connect(BusSettings(bootstrap=broker.bootstrap, timeout_seconds=30))
    bus.ensure_topics()
    there = hook()
    notifier = command({"ops": there.url}, broker.bootstrap)
    notifier.start()

    def say(numbers: range) -> None:
        sender = bus.producer()
        for number in numbers:
            sender.send(FINDINGS, finding(f"f{number}", time.time(), version=number))
            sender.flush(60)
        sender.close()

    say(range(5))
    there.wait(5, 60)
    broker.stop()
    time.sleep(3)
    broker.start()
    say(range(5, 15))
    there.wait(15, 90)
    time.sleep(1)
    assert sorted(each.body["data"]["finding"]["version"] for each in there.received) == list(range(15))
    assert notifier.stop() == 0

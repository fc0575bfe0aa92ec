"""The spool against a real broker that is not there at first, and is restarted in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collectors.spool import Spool
from trimtab.bus import BusSettings, Record, connect
from trimtab.messages import TELEMETRY, Snapshot


@pytest.mark.integration
def test_a_broker_restarted_in_the_middle_loses_repeats_and_reorders_nothing(
    make_broker: Callable[[Path], Any], tmp_path: Path
) -> None:
    broker = make_broker(tmp_path / "kafka")
    bus = connect(BusSettings(bootstrap=broker.bootstrap, timeout_seconds=5))
    broker.stop()
    spool = Spool(bus, 1_000_000)
    sent = 0

    def put(seconds: float) -> None:
        nonlocal sent
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for target in ("a", "b", "c"):
                spool.put(Snapshot(target=target, fleet="f", role="app", time=float(sent), took=0.0, up=True), {})
            sent += 1
            time.sleep(0.02)

    put(1)
    broker.start()
    put(3)
    broker.stop()
    put(4)
    broker.start()
    put(2)
    assert spool.stop(60) == 0

    seen: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    consumer = bus.consumer([TELEMETRY], group=None)
    while records := consumer.poll(3):
        for record in records:
            assert isinstance(record.message, Snapshot)
            seen[record.message.target].append(record.message.time)
    consumer.close()
    assert seen == {target: [float(number) for number in range(sent)] for target in ("a", "b", "c")}


@pytest.mark.integration
def test_the_collect_command_stops_in_time_when_its_broker_is_gone(make_broker: Callable[[Path], Any], tmp_path: Path) -> None:
    broker = make_broker(tmp_path / "kafka")
    config, targets, spans = tmp_path / "trimtab.yaml", tmp_path / "targets.json", tmp_path / "spans.jsonl"
    config.write_text(f"collect: {{interval_seconds: 0.2}}\nkafka: {{bootstrap: '{broker.bootstrap}'}}\n")
    targets.write_text('[{"targets": ["127.0.0.1:1"], "labels": {"fleet": "intent", "role": "app", "target": "gone"}}]')
    command = [
        sys.executable,
        "-m",
        "trimtab",
        "collect",
        "--targets",
        str(targets),
        "--config",
        str(config),
        "--spans",
        str(spans),
    ]
    log = tmp_path / "stderr.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        bus = connect(BusSettings(bootstrap=broker.bootstrap))
        bus.ensure_topics()
        consumer = bus.consumer([TELEMETRY], group=None)
        records: list[Record] = []
        while len(records) < 3:
            records += consumer.poll(1)
        consumer.close()
        broker.stop()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
    finally:
        process.kill()
        process.wait()
    said = log.read_text()
    assert "snapshots that the bus has not taken" in said
    assert "Traceback" not in said
    # The traces of what was delivered are in the file, under the ids that travelled with the snapshots.
    ids = {json.loads(line)["span"] for line in spans.read_text().splitlines()}
    assert {record.headers["traceparent"].decode().split("-")[2] for record in records} <= ids

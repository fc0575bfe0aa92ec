"""What lies around the Flink job: the journal that makes a restart exact, checkpoints, health, training as a command."""

from __future__ import annotations

import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import checkpoints, flink_env, health, models_store, train_shell
from detectors.flink_env import FlinkSettings
from detectors.journal import Fleet, Incoming, Outgoing, read
from detectors.settings import DetectSettings
from trimtab.bus import BusSettings
from trimtab.codec import encode
from trimtab.errors import Missing, Undecodable
from trimtab.memory_bus import MemoryBus
from trimtab.messages import FINDINGS, FLEETS, MODELS, SCORES, TELEMETRY, DetectorModel, FleetSpec, Forgotten, Snapshot

START = 1_700_000_000.0
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class MemoryStore:
    """`Store` in memory, the way Flink keeps it: what was written, in order."""

    def __init__(self) -> None:
        self.dump: bytes | None = None
        self.entries: list[bytes] = []
        self.kept: bytes | None = None

    def dumped(self) -> bytes | None:
        return self.dump

    def journal(self) -> Iterable[bytes]:
        return list(self.entries)

    def model(self) -> bytes | None:
        return self.kept

    def append(self, entry: bytes) -> None:
        self.entries.append(entry)

    def replace(self, dump: bytes) -> None:
        self.dump, self.entries = dump, []

    def keep_model(self, message: bytes) -> None:
        self.kept = message

    def copy(self) -> MemoryStore:
        """What a checkpoint holds."""
        other = MemoryStore()
        other.dump, other.entries, other.kept = self.dump, list(self.entries), self.kept
        return other


def snapshot(target: str, tick: int, up: bool = True) -> Snapshot:
    count = 100.0 * tick + len(target)
    label = '{model="intent",version="1"}'
    series: dict[str, float | None] = {
        f"nv_inference_request_success{label}": count,
        f"nv_inference_request_failure{label}": 0.0,
        f"nv_inference_request_duration_us{label}": count * (10_000 + 50 * math.sin(tick)),
        f"nv_inference_queue_duration_us{label}": count * 500,
        f"nv_inference_compute_infer_duration_us{label}": count * 9_000,
        f"nv_inference_pending_request_count{label}": float(tick % 3),
    }
    return Snapshot(
        target=target,
        fleet="intent",
        role="triton",
        pool="stable",
        version=1,
        time=START + tick + 0.02,
        took=0.01,
        up=up,
        error=None if up else "connection refused",
        series=series if up else {},
    )


def telemetry(ticks: int, down_from: int) -> list[tuple[float, Incoming | None]]:
    """(now, record), or time that passes: three replicas, of which one stops answering."""
    events: list[tuple[float, Incoming | None]] = []
    for tick in range(ticks):
        for number, target in enumerate(("intent-v1-1", "intent-v1-2", "intent-v1-3")):
            message = snapshot(target, tick, up=not (number == 2 and tick >= down_from))
            events.append((message.time + 0.05, Incoming(TELEMETRY, target.encode(), encode(message), TRACE)))
        events += [(START + tick + quarter, None) for quarter in (0.25, 0.5, 0.75, 0.99)]
    return events


def play(fleet: Fleet, events: list[tuple[float, Incoming | None]]) -> list[Outgoing]:
    produced: list[Outgoing] = []
    for now, record in events:
        if record is None:
            produced += fleet.on_time(now)
            continue
        message = read(record)
        assert message is not None and not isinstance(message, Outgoing)
        produced += fleet.on_record(record, message, now)
    return produced


@pytest.mark.parametrize("cut", [1, 20, 61, 90, 113])
def test_a_fleet_that_is_restored_goes_on_exactly_where_it_was(cut: int) -> None:
    events = telemetry(20, down_from=12)
    store = MemoryStore()
    fleet = Fleet("intent", DetectSettings(), store)
    play(fleet, events[:cut])
    checkpoint = store.copy()
    expected = play(fleet, events[cut:])
    assert any(item.topic == FINDINGS for item in expected)
    restored = play(Fleet("intent", DetectSettings(), checkpoint), events[cut:])
    assert [(item.topic, item.key, item.value) for item in restored] == [(item.topic, item.key, item.value) for item in expected]


def test_the_journal_stays_short() -> None:
    store = MemoryStore()
    fleet = Fleet("intent", DetectSettings(), store)
    longest = 0
    for event in telemetry(30, down_from=99):
        play(fleet, [event])
        longest = max(longest, len(store.entries))
    assert longest < 30


def test_the_trace_of_the_scrape_goes_on_in_scores_and_findings() -> None:
    produced = play(Fleet("intent", DetectSettings(), MemoryStore()), telemetry(20, down_from=12))
    assert {item.topic for item in produced} == {SCORES, FINDINGS}
    assert all(item.traceparent is not None and item.traceparent.split(b"-")[1] == TRACE.split(b"-")[1] for item in produced)


def test_what_a_damaged_state_held_is_given_up_and_detection_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    store.dump = b"\x93 no state"
    assert any(item.topic == FINDINGS for item in play(Fleet("intent", DetectSettings(), store), telemetry(20, down_from=12)))
    assert "starts anew" in caplog.text


def test_a_snapshot_from_the_future_is_rejected_with_the_reason() -> None:
    fleet = Fleet("intent", DetectSettings(), MemoryStore())
    message = snapshot("intent-v1-1", 60)
    [rejected] = fleet.on_record(Incoming(TELEMETRY, b"intent-v1-1", encode(message), TRACE), message, START)
    assert rejected.topic == "trimtab.telemetry.rejected"
    assert rejected.value == encode(message)
    assert rejected.reason is not None and b"60.0 s in the future" in rejected.reason


@given(
    st.binary()
    | st.text().map(str.encode)
    | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_whatever_is_no_message_is_rejected_with_its_bytes(value: bytes) -> None:
    for topic in (TELEMETRY, FLEETS, MODELS):
        outgoing = read(Incoming(topic, b"key", value))
        assert isinstance(outgoing, Outgoing)
        assert (outgoing.topic, outgoing.key, outgoing.value) == (f"{topic}.rejected", b"key", value)
        assert outgoing.reason


def test_a_fleet_without_a_name_and_an_empty_record_are_rejected_but_a_deleted_key_is_not() -> None:
    nameless = encode(FleetSpec(fleet="", model="m", version=1, capacity_per_replica=1.0))
    outgoing = read(Incoming(FLEETS, b"", nameless))
    assert isinstance(outgoing, Outgoing) and outgoing.reason == b"names no fleet"
    assert isinstance(read(Incoming(TELEMETRY, b"t", None)), Outgoing)
    assert read(Incoming(FLEETS, b"intent", None)) == Forgotten(fleet="intent")
    assert read(Incoming(MODELS, b"intent", None)) is None


def test_a_record_without_a_value_goes_to_the_fleet_of_its_key() -> None:
    from pyflink.common import Row

    from detectors.job import fleet_of

    assert fleet_of(Row(FLEETS, b"intent", None, None)) == "intent"
    assert fleet_of(Row(TELEMETRY, b"intent-v1-1", None, None)) == ""  # no message: it will be rejected
    assert fleet_of(Row("", None, None, None)) == ""


def test_a_model_that_is_not_there_leaves_the_old_one_in_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    fleet = Fleet("intent", DetectSettings(), store)
    (tmp_path / "DIGEST").write_text("another")
    for path in (tmp_path / "nowhere", tmp_path):
        message = DetectorModel(fleet="intent", path=str(path), digest="0123456789abcdef", trained_from=0, trained_to=1, time=2)
        assert fleet.on_record(Incoming(MODELS, b"intent", encode(message)), message, START) == []
    assert store.kept is None
    assert caplog.text.count("model 0123456789ab is not used") == 2


def test_without_the_connector_the_job_says_where_to_get_it(tmp_path: Path) -> None:
    environment = dict(os.environ)
    with pytest.raises(Missing, match=r"Flink's Kafka connector is not in .*: `trimtab doctor` fetches it"):
        flink_env.start(FlinkSettings(jars=tmp_path, checkpoints=tmp_path / "chk", logs=tmp_path / "logs"))
    assert dict(os.environ) == environment and not (tmp_path / "logs").exists()


def test_the_newest_completed_checkpoint_comes_first(tmp_path: Path) -> None:
    def make(name: str, content: bytes, modified: float) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "_metadata").write_bytes(content)
        os.utime(folder / "_metadata", (modified, modified))
        return folder

    good = bytes.fromhex("4960672d") + b"rest"
    old, new = make("a/chk-7", good, 100), make("b/chk-2", good, 200)
    make("b/chk-3", b"", 300)
    make("b/chk-4", b"garbage", 400)
    (tmp_path / "b/chk-5").mkdir()
    assert checkpoints.completed(tmp_path) == [new, old]
    checkpoints.set_aside(new)
    assert checkpoints.completed(tmp_path) == [old]
    assert checkpoints.completed(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("state", "beat", "status"),
    [("RUNNING", 0.0, 200), ("RUNNING", -60.0, 503), ("RUNNING", None, 503), ("RESTARTING", 0.0, 503), ("STARTING", None, 503)],
)
def test_healthy_means_running_with_a_fresh_heartbeat(tmp_path: Path, state: str, beat: float | None, status: int) -> None:
    if beat is not None:
        (tmp_path / "beat").write_text(f"{time.time() + beat} 1\n")
    server = health.serve(health.Health(tmp_path / "beat", state), 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/", timeout=5) as answer:
            found, body = answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        found, body = error.code, json.load(error)
    server.shutdown()
    assert found == status
    assert body["healthy"] == (status == 200)
    assert body["state"] == state


def _training(tmp_path: Path, **changes: Any) -> train_shell.Training:
    values: dict[str, Any] = {
        "fleet": "intent",
        "models": tmp_path,
        "bus": BusSettings(),
        "detect": DetectSettings(),
        "ticks": 30,
    }
    return train_shell.Training(**(values | changes))


def test_training_waits_for_enough_ticks_of_its_fleet_and_says_how_far_it_is(tmp_path: Path) -> None:
    bus = MemoryBus()
    bus.ensure_topics()
    producer = bus.producer()
    said: list[float] = []
    ticks = iter(range(100))

    def report(_: str, share: float) -> None:
        said.append(share)
        producer.send(TELEMETRY, snapshot("intent-v1-1", next(ticks)))
        producer.flush()

    found = train_shell.gather(bus, _training(tmp_path), report)
    assert len({item.time for item in found}) >= 30
    assert said == sorted(said) and said[0] < 1.0 and said[-1] == 1.0


def test_too_little_telemetry_is_missing_in_words(tmp_path: Path) -> None:
    bus = MemoryBus()
    bus.ensure_topics()
    with pytest.raises(Missing, match="fleet intent sent 0 ticks of telemetry within 0 s, training needs 30"):
        train_shell.gather(bus, _training(tmp_path, timeout=0.0), lambda _what, _share: None)


def test_a_file_with_something_else_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(encode(snapshot("intent-v1-1", 1)) + b"\n\n{}\n")
    with pytest.raises(Undecodable, match=r"t\.jsonl:3: not a Snapshot"):
        list(train_shell.read_file(file, "intent"))
    with pytest.raises(Missing, match="cannot be read"):
        list(train_shell.read_file(tmp_path / "nowhere", "intent"))


def test_a_trained_model_is_kept_by_its_digest_announced_and_taken_over(tmp_path: Path, models: models_store.Models) -> None:
    digest = train_shell.keep(models, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [digest]
    bus = MemoryBus()
    bus.ensure_topics()
    train_shell.announce(bus, "intent", tmp_path / digest, digest, models)
    [record] = bus.consumer([MODELS], group=None).poll(1.0)
    store = MemoryStore()
    fleet = Fleet("intent", DetectSettings(), store)
    assert fleet.on_record(Incoming(MODELS, b"intent", encode(record.message)), record.message, START) == []
    assert store.kept == encode(record.message)
    detectors = {json.loads(item.value or b"")["detector"] for item in play(fleet, telemetry(40, 99)) if item.topic == SCORES}
    assert "isolation_forest" in detectors
    # A restart loads the same model again.
    again = {
        json.loads(i.value or b"")["detector"] for i in play(Fleet("intent", DetectSettings(), store), telemetry(60, 99)[280:])
    }
    assert "isolation_forest" in again

"""One contract over every bus: the one in memory and the real Kafka."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator

import pytest

from trimtab.bus import Bus, BusSettings, Consumer, Record, connect, rejected
from trimtab.memory_bus import MemoryBus
from trimtab.messages import DECISIONS, FINDINGS, FLEETS, TELEMETRY, TOPICS, Decision, Finding, FleetSpec, Forgotten, Snapshot


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    made: Bus = MemoryBus() if request.param == "memory" else connect(BusSettings(bootstrap=request.getfixturevalue("kafka")))
    made.ensure_topics()
    yield made


@pytest.fixture
def fleet() -> str:
    """Topics are shared by the session's tests: each test reads its own fleet only."""
    return f"fleet-{uuid.uuid4().hex[:8]}"


def finding(fleet: str, number: int) -> Finding:
    return Finding(
        id=str(number), fleet=fleet, kind="gpu_fault", severity="info", onset=1.0, time=float(number), state="firing",
        confidence=1.0, summary="XID 79",
    )  # fmt: skip


def snapshot(fleet: str, target: str, number: int) -> Snapshot:
    return Snapshot(target=target, fleet=fleet, role="triton", time=float(number), took=0.01, up=True, series={"a": None})


def read(consumer: Consumer, fleet: str | tuple[str, ...], count: int, seconds: float = 60.0) -> list[Record]:
    """Reads until `count` records of this fleet, or of these, came (or time is up)."""
    fleets = (fleet,) if isinstance(fleet, str) else fleet
    records: list[Record] = []
    deadline = time.monotonic() + seconds
    while len(records) < count and time.monotonic() < deadline:
        records += [record for record in consumer.poll(0.2) if getattr(record.message, "fleet", None) in fleets]
    return records


def test_what_was_flushed_is_read_with_its_headers(bus: Bus, fleet: str) -> None:
    producer = bus.producer()
    producer.send(FINDINGS, finding(fleet, 1), {"traceparent": b"00-abc"})
    producer.flush()
    (record,) = read(bus.consumer([FINDINGS], group=None), fleet, 1)
    assert record.message == finding(fleet, 1)
    assert record.headers == {"traceparent": b"00-abc"}
    assert record.topic == FINDINGS


def test_one_key_keeps_its_order(bus: Bus, fleet: str) -> None:
    producer = bus.producer()
    targets = [f"{fleet}-a", f"{fleet}-b"]
    for number, target in itertools.product(range(50), targets):
        producer.send(TELEMETRY, snapshot(fleet, target, number))
    producer.flush()
    messages = [record.message for record in read(bus.consumer([TELEMETRY], group=None), fleet, 100)]
    for target in targets:
        assert [m.time for m in messages if isinstance(m, Snapshot) and m.target == target] == [float(n) for n in range(50)]


def test_a_group_goes_on_after_its_commit_and_repeats_what_it_did_not_commit(bus: Bus, fleet: str) -> None:
    producer = bus.producer()
    group = f"group-{fleet}"
    producer.send(FINDINGS, finding(fleet, 1))
    producer.flush()
    first = bus.consumer([FINDINGS], group=group)
    assert len(read(first, fleet, 1)) == 1
    first.commit()
    producer.send(FINDINGS, finding(fleet, 2))
    producer.flush()
    assert len(read(first, fleet, 1)) == 1
    first.close()  # not committed: as a process that died
    second = bus.consumer([FINDINGS], group=group)
    assert [record.message for record in read(second, fleet, 1)] == [finding(fleet, 2)]
    second.close()


def test_a_group_can_commit_one_record_at_a_time(bus: Bus, fleet: str) -> None:
    producer = bus.producer()
    for number in (1, 2, 3):
        producer.send(FINDINGS, finding(fleet, number))
    producer.flush()
    first = bus.consumer([FINDINGS], group=f"group-{fleet}")
    records = read(first, fleet, 3)
    first.commit(records[0])
    first.commit(records[1])
    first.close()
    second = bus.consumer([FINDINGS], group=f"group-{fleet}")
    assert [record.message for record in read(second, fleet, 1)] == [finding(fleet, 3)]
    second.close()


def test_all_that_the_topics_hold_is_read_at_once(bus: Bus, fleet: str) -> None:
    producer = bus.producer()
    bus.read_all([FINDINGS, DECISIONS])
    for number in range(50):
        producer.send(FINDINGS, finding(fleet, number))
    decision = Decision(id="d", fleet=fleet, time=1.0, action="hold", outcome="refused", reason="because")
    producer.send(DECISIONS, decision)
    producer.flush()
    mine = [record.message for record in bus.read_all([FINDINGS, DECISIONS]) if getattr(record.message, "fleet", None) == fleet]
    assert [message for message in mine if isinstance(message, Finding)] == [finding(fleet, number) for number in range(50)]
    assert [message for message in mine if isinstance(message, Decision)] == [decision]


def test_a_time_of_the_topics_is_read_alone(bus: Bus, fleet: str) -> None:
    producer = bus.producer()
    times = []
    for number in range(3):
        producer.send(FINDINGS, finding(fleet, number))
        producer.flush()
        time.sleep(0.02)
        times.append(time.time())
        time.sleep(0.02)

    def numbers(since: float | None, until: float | None) -> list[str]:
        records = bus.read_all([FINDINGS], since, until)
        return [r.message.id for r in records if isinstance(r.message, Finding) and r.message.fleet == fleet]

    assert numbers(None, None) == ["0", "1", "2"]
    assert numbers(times[0], None) == ["1", "2"]
    assert numbers(None, times[1]) == ["0", "1"]
    assert numbers(times[0], times[1]) == ["1"]
    assert numbers(times[2], None) == []


def test_latest_means_from_now_on(bus: Bus, fleet: str) -> None:
    producer = bus.producer()
    producer.send(FINDINGS, finding(fleet, 1))
    producer.flush()
    consumer = bus.consumer([FINDINGS], group=None, start="latest")
    producer.send(FINDINGS, finding(fleet, 2))
    producer.flush()
    assert [record.message for record in read(consumer, fleet, 1)] == [finding(fleet, 2)]


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe", b"[1,2", b'{"schema":99}', b'{"schema":1,"id":7}'])
def test_what_does_not_decode_is_rejected_with_the_reason_and_the_stream_goes_on(bus: Bus, fleet: str, junk: bytes) -> None:
    producer = bus.producer()
    group = f"group-{fleet}"
    consumer = bus.consumer([DECISIONS], group=group)
    _put_raw(bus, DECISIONS, junk)
    good = Decision(id="d", fleet=fleet, time=1.0, action="hold", outcome="applied", reason="because")
    producer.send(DECISIONS, good)
    producer.flush()
    assert [record.message for record in read(consumer, fleet, 1)] == [good]
    consumer.commit()
    consumer.close()
    assert any(
        (value == junk and b"not a Decision" in reason) or b"schema 99" in reason for value, reason in _rejected(bus, DECISIONS)
    )


def spec(fleet: str, version: int) -> FleetSpec:
    return FleetSpec(fleet=fleet, model="m", version=version, capacity_per_replica=1.0)


def test_a_forgotten_fleet_is_passed_over_or_told_in_its_order_and_is_no_rejected_message(bus: Bus, fleet: str) -> None:
    producer, other = bus.producer(), f"{fleet}-b"
    group = bus.consumer([FLEETS], group=f"group-{fleet}")
    producer.send(FLEETS, spec(fleet, 1))
    producer.forget(FLEETS, fleet)
    producer.send(FLEETS, spec(fleet, 2))
    producer.forget(FLEETS, fleet)
    producer.send(FLEETS, spec(other, 1))
    producer.flush()
    told = read(bus.consumer([FLEETS], group=None, forgotten=True), fleet, 4)
    assert [record.message for record in told] == [spec(fleet, 1), Forgotten(fleet=fleet), spec(fleet, 2), Forgotten(fleet=fleet)]
    assert {record.topic for record in told} == {FLEETS} and len({(r.partition, r.offset) for r in told}) == 4
    found = [record.message for record in read(group, (fleet, other), 3)]
    passed = [message for message in found if message != spec(other, 1)]
    assert passed == [spec(fleet, 1), spec(fleet, 2)] and len(found) == 3
    group.commit()
    group.close()
    assert [r.message for r in bus.read_all([FLEETS]) if getattr(r.message, "fleet", "") == fleet] == passed
    producer.forget(FLEETS, other)  # other tests of this session count the fleets there are
    producer.flush()
    assert not [value for value, _ in _rejected(bus, FLEETS) if value is None or fleet.encode() in value]


def test_a_commit_reaches_past_what_was_forgotten(bus: Bus, fleet: str) -> None:
    producer, group = bus.producer(), f"group-{fleet}"
    first = bus.consumer([FLEETS], group=group)
    producer.send(FLEETS, spec(fleet, 1))
    producer.forget(FLEETS, fleet)
    producer.flush()
    assert len(read(first, fleet, 1)) == 1
    first.poll(0.5)
    first.commit()
    first.close()
    again = bus.consumer([FLEETS], group=group, forgotten=True)
    producer.send(FLEETS, spec(fleet, 3))
    producer.flush()
    assert spec(fleet, 3) in [record.message for record in read(again, fleet, 1)]
    again.close()
    producer.forget(FLEETS, fleet)
    producer.flush()


def test_no_message_on_another_topic_is_still_rejected(bus: Bus, fleet: str) -> None:
    producer, group = bus.producer(), f"group-{fleet}"
    consumer = bus.consumer([FINDINGS], group=group, forgotten=True)
    _put_raw(bus, FINDINGS, b"")
    producer.send(FINDINGS, finding(fleet, 1))
    producer.flush()
    assert [record.message for record in read(consumer, fleet, 1)] == [finding(fleet, 1)]
    consumer.commit()
    consumer.close()
    assert any(value in (b"", None) for value, _ in _rejected(bus, FINDINGS))


def test_ensure_topics_makes_all_and_may_be_repeated(bus: Bus) -> None:
    bus.ensure_topics()
    for topic in TOPICS:
        bus.consumer([topic], group=None).close()


def _put_raw(bus: Bus, topic: str, value: bytes) -> None:
    if isinstance(bus, MemoryBus):
        bus.append(topic, value)
        return
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bus._settings.bootstrap)  # type: ignore[attr-defined]
    producer.send(topic, value=value)
    producer.flush()
    producer.close()


def _rejected(bus: Bus, topic: str) -> list[tuple[bytes, bytes]]:
    if isinstance(bus, MemoryBus):
        return [(value, headers["reason"]) for _, value, headers in bus.topics[rejected(topic)] if isinstance(value, bytes)]
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(
        rejected(topic), bootstrap_servers=bus._settings.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=3000  # type: ignore[attr-defined]
    )  # fmt: skip
    found = [(record.value, dict(record.headers)["reason"]) for record in consumer]
    consumer.close()
    return found

"""The spool: in order, nothing lost while the bus is away, bounded, and honest about what it drops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import pytest

from collectors.spool import AWAY, LOST, WAITING, Spool
from trimtab.bus import Producer
from trimtab.errors import Unavailable
from trimtab.memory_bus import MemoryBus
from trimtab.messages import TELEMETRY, Message, Snapshot


def snapshot(number: int, series: int = 0) -> Snapshot:
    values: dict[str, float | None] = {f"s{i}": 1.0 for i in range(series)}
    return Snapshot(target="t", fleet="f", role="app", time=float(number), took=0.0, up=True, series=values)


def times(bus: MemoryBus) -> list[float]:
    found = []
    for record in bus.consumer([TELEMETRY], group=None).poll(0):
        assert isinstance(record.message, Snapshot)
        found.append(record.message.time)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    done = threading.Event()
    for _ in range(1000):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("never came true")


def test_delivers_in_order_with_headers() -> None:
    bus = MemoryBus()
    spool = Spool(bus, 10_000)
    for number in range(100):
        spool.put(snapshot(number), {"traceparent": b"00-%d" % number})
    assert spool.stop(10) == 0
    assert times(bus) == list(range(100))
    records = bus.consumer([TELEMETRY], group=None).poll(0)
    assert [record.headers["traceparent"] for record in records] == [b"00-%d" % number for number in range(100)]
    assert WAITING._value.get() == 0


def test_a_bus_that_goes_and_comes_back_loses_nothing_and_repeats_nothing() -> None:
    bus = MemoryBus()
    spool = Spool(bus, 100_000, retry_seconds=0.01)
    spool.put(snapshot(0), {})
    wait_for(lambda: len(bus.topics.get(TELEMETRY, [])) == 1)
    bus.away = True
    for number in range(1, 700):
        spool.put(snapshot(number), {})
    wait_for(lambda: AWAY._value.get() == 1)
    assert WAITING._value.get() == 699
    bus.away = False
    assert spool.stop(10) == 0
    assert times(bus) == list(range(700))
    assert AWAY._value.get() == 0


def test_past_its_bound_the_oldest_are_lost_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    bus = MemoryBus(away=True)
    before = LOST._value.get()
    spool = Spool(bus, 100 * (10 + 5), retry_seconds=0.01)
    for number in range(250):
        spool.put(snapshot(number, series=5), {})
    lost = LOST._value.get() - before
    assert lost >= 150 - 1
    bus.away = False
    assert spool.stop(10) == 0
    delivered = times(bus)
    assert len(delivered) == 250 - lost
    assert delivered == sorted(delivered)
    assert delivered[-1] == 249
    assert "spool is full" in caplog.text
    assert f"the bus takes snapshots again; {lost:.0f} were lost meanwhile" in caplog.text


def test_stopping_while_the_bus_is_away_says_how_many_are_left(caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(MemoryBus(away=True), 1000, retry_seconds=0.01)
    for number in range(3):
        spool.put(snapshot(number), {})
    assert spool.stop(10) == 3
    assert "3 snapshots that the bus has not taken" in caplog.text


class Stubborn(MemoryBus):
    """Cannot be reached at first; then its producer refuses some messages half-way through a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.connects = 0
        self.refusals = 3

    def producer(self) -> Producer:
        self.connects += 1
        if self.connects <= 2:
            raise Unavailable("nobody there")
        return _Refusing(self, super().producer())


class _Refusing:
    def __init__(self, bus: Stubborn, inner: Producer) -> None:
        self._bus, self._inner = bus, inner

    def send(self, topic: str, message: Message, headers: Mapping[str, bytes] | None = None) -> None:
        assert isinstance(message, Snapshot)
        if message.time == 5 and self._bus.refusals:
            self._bus.refusals -= 1
            raise Unavailable("the queue is full")
        self._inner.send(topic, message, headers)

    def forget(self, topic: str, fleet: str) -> None:
        self._inner.forget(topic, fleet)

    def flush(self, timeout: float = 10.0) -> None:
        self._inner.flush(timeout)

    def close(self) -> None:
        self._inner.close()


def test_what_was_sent_before_a_refusal_is_not_sent_again() -> None:
    bus = Stubborn()
    spool = Spool(bus, 10_000, retry_seconds=0.01)
    for number in range(10):
        spool.put(snapshot(number), {})
    wait_for(lambda: len(bus.topics.get(TELEMETRY, [])) == 10)
    assert spool.stop(10) == 0
    assert times(bus) == list(range(10))
    assert bus.refusals == 0


class Mad(MemoryBus):
    def producer(self) -> Producer:
        raise RuntimeError("a bug")


def test_an_unforeseen_error_is_not_silent(caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(Mad(), 1000)
    spool.put(snapshot(1), {})
    wait_for(lambda: spool.broken)
    assert spool.stop(1) == 1
    assert "a bug" in caplog.text


class Slow(MemoryBus):
    """Takes a message only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()

    def producer(self) -> Producer:
        self.let.wait(20)
        return super().producer()


def test_a_bus_that_is_slow_is_said_while_it_is(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.spool.SLOW_SECONDS", 0.05)
    bus = Slow()
    spool = Spool(bus, 10_000)

    def said() -> bool:
        spool.put(snapshot(0), {})
        return bool(AWAY._value.get() == 1)

    wait_for(said)
    assert caplog.text.count("the bus has not taken snapshots for") == 1
    bus.let.set()
    assert spool.stop(10) == 0
    assert AWAY._value.get() == 0
    assert "the bus takes snapshots again; 0 were lost meanwhile" in caplog.text

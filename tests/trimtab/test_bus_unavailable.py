"""A broker that is away: a clear error, and nothing that was queued is lost."""

import socket

import pytest

from trimtab.bus import BusSettings, connect
from trimtab.errors import Unavailable
from trimtab.memory_bus import MemoryBus
from trimtab.messages import FINDINGS, Finding


def test_kafka_away_is_unavailable_with_its_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        bus = connect(BusSettings(bootstrap=address, timeout_seconds=0.5))
        with pytest.raises(Unavailable, match=address):
            bus.ensure_topics()


def test_memory_bus_keeps_what_was_queued_while_it_was_away() -> None:
    bus = MemoryBus()
    bus.ensure_topics()
    bus.away = True
    producer = bus.producer()
    sent = Finding(
        id="1", fleet="f", kind="saturation", severity="info", onset=0.0, time=0.0, state="firing", confidence=1.0, summary=""
    )  # fmt: skip
    producer.send(FINDINGS, sent)
    with pytest.raises(Unavailable):
        producer.flush()
    bus.away = False
    producer.flush()
    assert [record.message for record in bus.consumer([FINDINGS], group=None).poll(0)] == [sent]

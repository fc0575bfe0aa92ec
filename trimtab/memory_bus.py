"""A bus inside one process, for unit tests and simulations: bytes in lists, the same promises as Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trimtab.bus import BusSettings, Consumer, Producer, Record, Start, rejected, topic_settings
from trimtab.codec import decode, encode
from trimtab.errors import Unavailable, Undecodable
from trimtab.messages import Forgotten, Message

Stored = tuple[float, bytes | Forgotten, dict[str, bytes]]


@dataclass
class MemoryBus:
    """Topics with one partition each. `away` makes it behave like a broker that does not answer."""

    topics: dict[str, list[Stored]] = field(default_factory=dict)
    commits: dict[tuple[str, str], int] = field(default_factory=dict)
    away: bool = False
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def ensure_topics(self) -> None:
        """See `Bus`."""
        for topic in topic_settings(BusSettings()):
            self.topics.setdefault(topic, [])

    def producer(self) -> Producer:
        """See `Bus`."""
        return _MemoryProducer(self)

    def consumer(
        self, topics: Sequence[str], *, group: str | None, start: Start = "earliest", forgotten: bool = False
    ) -> Consumer:
        """See `Bus`."""
        return _MemoryConsumer(self, list(topics), group, start, forgotten)

    def read_all(self, topics: Sequence[str], since: float | None = None, until: float | None = None) -> list[Record]:
        """See `Bus`."""
        if self.away:
            raise Unavailable("the bus is away: nothing can be read")
        records = self.consumer(topics, group=None).poll(0)
        return [r for r in records if (since is None or r.time >= since) and (until is None or r.time < until)]

    def append(self, topic: str, value: bytes | Forgotten, headers: Mapping[str, bytes] | None = None) -> None:
        """Puts raw bytes on a topic, as a foreign producer might."""
        with self.arrived:
            self.topics.setdefault(topic, []).append((time.time(), value, dict(headers or {})))
            self.arrived.notify_all()


class _MemoryProducer:
    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._queued: list[tuple[str, bytes | Forgotten, dict[str, bytes]]] = []

    def send(self, topic: str, message: Message, headers: Mapping[str, bytes] | None = None) -> None:
        self._queue(topic, encode(message), headers)

    def forget(self, topic: str, fleet: str) -> None:
        self._queue(topic, Forgotten(fleet=fleet), None)

    def _queue(self, topic: str, value: bytes | Forgotten, headers: Mapping[str, bytes] | None) -> None:
        self._queued.append((topic, value, dict(headers or {})))
        if not self._bus.away:
            self.flush()

    def flush(self, timeout: float = 10.0) -> None:
        if self._bus.away and self._queued:
            raise Unavailable(f"the bus is away: {len(self._queued)} messages are not delivered")
        for topic, value, headers in self._queued:
            self._bus.append(topic, value, headers)
        self._queued.clear()

    def close(self) -> None:
        if not self._bus.away:
            self.flush()


class _MemoryConsumer:
    def __init__(self, bus: MemoryBus, topics: list[str], group: str | None, start: Start, forgotten: bool) -> None:
        self._bus, self._group, self._forgotten = bus, group, forgotten
        at = {topic: len(bus.topics.get(topic, [])) if start == "latest" else 0 for topic in topics}
        self._next = {topic: bus.commits.get((group, topic), at[topic]) if group else at[topic] for topic in topics}

    def poll(self, timeout: float) -> list[Record]:
        records: list[Record] = []
        with self._bus.arrived:
            self._bus.arrived.wait_for(self._behind, timeout)
            if self._bus.away:
                return []
            fresh = {topic: self._bus.topics.get(topic, [])[start:] for topic, start in self._next.items()}
        for topic, stored in fresh.items():
            for at, value, headers in stored:
                offset = self._next[topic]
                self._next[topic] += 1
                if isinstance(value, Forgotten):
                    if self._forgotten:
                        records.append(Record(topic, 0, offset, at, value, headers))
                    continue
                try:
                    records.append(Record(topic, 0, offset, at, decode(topic, value), headers))
                except Undecodable as error:
                    self._bus.append(rejected(topic), value, {**headers, "reason": str(error).encode()})
        return sorted(records, key=lambda record: record.time)

    def _behind(self) -> bool:
        return any(len(self._bus.topics.get(topic, [])) > at for topic, at in self._next.items())

    def commit(self, record: Record | None = None) -> None:
        done = self._next if record is None else {record.topic: record.offset + 1}
        if self._group:
            self._bus.commits.update({(self._group, topic): at for topic, at in done.items()})

    def close(self) -> None:
        self._next = {}

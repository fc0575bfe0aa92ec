"""One reader and one producer of the bus for all fleets: each fleet's autoscaler has a `Bus` that holds only what is its own."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from trimtab.bus import Bus, Consumer, Producer, Record, Start
from trimtab.errors import TrimtabError, Unavailable
from trimtab.messages import DECISIONS, FINDINGS, FLEETS, TELEMETRY, Decision, FleetSpec, Forgotten, Message

log = logging.getLogger(__name__)

_QUEUE = 20_000
_KEPT_PER_FLEET = 500
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 15.0
_POLL_SECONDS = 0.5


class Hub:
    """Reads telemetry from now on, and findings and specs from their beginning; each fleet skips what it has processed.

    `wake(fleet, urgent)` is called when records of an attached fleet came; urgent: a finding or a spec.
    """

    def __init__(self, bus: Bus, wake: Callable[[str, bool], None]) -> None:
        self._bus, self._wake = bus, wake
        self._queues: dict[str, deque[Record]] = {}
        self._early: dict[str, list[Record]] = {}
        self._lock = threading.Lock()
        self._producer: SharedProducer | None = None
        self._threads: list[threading.Thread] = []
        self._problems: dict[str, str] = {}
        self.dropped = 0
        """Records that were given up because a fleet did not take them."""

    @property
    def problem(self) -> str | None:
        """Why the bus is away, in words; None while it answers."""
        return next(iter(self._problems.values()), None)

    def start(self, stop: threading.Event) -> None:
        """Reads until `stop` is set."""
        readers: tuple[tuple[tuple[str, ...], Start], ...] = (((TELEMETRY,), "latest"), ((FINDINGS, FLEETS), "earliest"))
        for topics, start in readers:
            thread = threading.Thread(target=self._read, args=(topics, start, stop), name=f"read {topics[0]}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self, timeout: float = 5.0) -> None:
        """Waits for the readers after `stop`, and closes the producer."""
        for thread in self._threads:
            thread.join(timeout)
        if self._producer is not None:
            self._producer.shut()

    def attach(self, fleet: str, since: float, heard: Callable[[Decision], None]) -> FleetBus:
        """A bus for one fleet. Findings from before `since` (its creation) are of another fleet of this name.

        `heard` is called for every decision that the fleet's autoscaler has published.
        """
        with self._lock:
            early = [record for record in self._early.get(fleet, []) if record.time >= since - 1.0]
            self._queues[fleet] = deque(early, maxlen=_QUEUE)
        return FleetBus(self, fleet, heard)

    def detach(self, fleet: str) -> None:
        """Nothing is kept for this fleet any more."""
        with self._lock:
            self._queues.pop(fleet, None)

    def take(self, fleet: str) -> list[Record]:
        """What has come for a fleet."""
        with self._lock:
            queue = self._queues.get(fleet)
            records = list(queue) if queue else []
            if queue:
                queue.clear()
        return records

    def producer(self) -> SharedProducer:
        """The one producer; made when it is needed first."""
        with self._lock:
            if self._producer is None:
                self._producer = SharedProducer(self._bus)
            return self._producer

    def _read(self, topics: tuple[str, ...], start: Start, stop: threading.Event) -> None:
        pause, consumer = _PAUSE_SECONDS, None
        while not stop.is_set():
            try:
                consumer = consumer or self._bus.consumer(topics, group=None, start=start, forgotten=True)
                for record in consumer.poll(_POLL_SECONDS):
                    self._route(record)
                self._problems.pop(topics[0], None)
                pause = _PAUSE_SECONDS
            except Unavailable as error:
                if topics[0] not in self._problems:
                    log.warning("%s; reading again when it answers", error)
                self._problems[topics[0]] = str(error)
                stop.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        if consumer is not None:
            consumer.close()

    def _route(self, record: Record) -> None:
        fleet = str(getattr(record.message, "fleet", ""))
        if isinstance(record.message, Forgotten):
            with self._lock:
                self._early.pop(fleet, None)
            return
        urgent = record.topic != TELEMETRY
        with self._lock:
            queue = self._queues.get(fleet)
            if urgent:
                self._remember(fleet, record)  # for a fleet that is followed later, or that begins again from its memory
            if queue is None:
                return
            self.dropped += len(queue) == _QUEUE
            queue.append(record)
        self._wake(fleet, urgent)

    def _remember(self, fleet: str, record: Record) -> None:
        kept = self._early.setdefault(fleet, [])
        if isinstance(record.message, FleetSpec):
            kept[:] = [each for each in kept if not isinstance(each.message, FleetSpec)]
        kept.append(record)
        del kept[:-_KEPT_PER_FLEET]


class SharedProducer:
    """One producer for many threads. Flushes that are asked for while one runs are answered together by the next."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._producer: Producer | None = None
        self._sending = threading.Lock()
        self._turn = threading.Condition()
        self._sent = self._flushed = 0
        self._flushing = False
        self._attempt = 0
        self._failed: tuple[int, int, TrimtabError] | None = None

    def send(self, topic: str, message: Message, headers: Mapping[str, bytes] | None = None) -> int:
        """Queues a message; returns the number that `flush` waits for."""
        with self._sending:
            if self._producer is None:
                self._producer = self._bus.producer()
            self._producer.send(topic, message, headers)
            self._sent += 1
            return self._sent

    def forget(self, topic: str, fleet: str) -> int:
        """Queues that a topic holds nothing of this fleet any more; returns the number that `flush` waits for."""
        with self._sending:
            if self._producer is None:
                self._producer = self._bus.producer()
            self._producer.forget(topic, fleet)
            self._sent += 1
            return self._sent

    def flush(self, number: int, timeout: float = 10.0) -> None:
        """Returns when everything up to `number` is acknowledged; raises `Unavailable` when it is not."""
        with self._turn:
            began = self._attempt
            while self._flushed < number:
                # A failure before this call says nothing about it.
                if self._failed is not None and self._failed[0] > began and self._failed[1] >= number:
                    raise self._failed[2]
                if self._flushing:
                    self._turn.wait()
                    continue
                self._flushing = True
                self._attempt += 1
                self._turn.release()
                try:
                    upto, error = self._sent, self._try(timeout)
                finally:
                    self._turn.acquire()
                    self._flushing = False
                if error is None:
                    self._flushed = max(self._flushed, upto)
                else:
                    self._failed = (self._attempt, upto, error)
                self._turn.notify_all()

    def shut(self) -> None:
        """Flushes what it can and lets go."""
        with self._sending:
            if self._producer is not None:
                self._producer.close()

    def _try(self, timeout: float) -> Unavailable | None:
        try:
            if self._producer is not None:
                self._producer.flush(timeout)
        except Unavailable as error:
            return error
        return None


class FleetBus:
    """See `Bus`: what one fleet's autoscaler reads and writes."""

    def __init__(self, hub: Hub, fleet: str, heard: Callable[[Decision], None]) -> None:
        self._hub, self._fleet, self._heard = hub, fleet, heard

    def ensure_topics(self) -> None:
        """Whoever made the hub did that."""

    def producer(self) -> Producer:
        """See `Bus`."""
        return _FleetProducer(self._hub, self._heard)

    def consumer(
        self, topics: Sequence[str], *, group: str | None, start: Start = "earliest", forgotten: bool = False
    ) -> Consumer:
        """See `Bus`. Where a fleet goes on is in its memory, so there is no group."""
        return _FleetConsumer(self._hub, self._fleet)

    def read_all(self, topics: Sequence[str], since: float | None = None, until: float | None = None) -> list[Record]:
        """See `Bus`."""
        raise NotImplementedError("a fleet's autoscaler reads from its memory on")


class _FleetProducer:
    def __init__(self, hub: Hub, heard: Callable[[Decision], None]) -> None:
        self._hub, self._heard = hub, heard
        self._last = 0
        self._decisions: list[Decision] = []

    def send(self, topic: str, message: Message, headers: Mapping[str, bytes] | None = None) -> None:
        self._last = self._hub.producer().send(topic, message, headers)
        if topic == DECISIONS and isinstance(message, Decision):
            self._decisions.append(message)

    def forget(self, topic: str, fleet: str) -> None:
        self._last = self._hub.producer().forget(topic, fleet)

    def flush(self, timeout: float = 10.0) -> None:
        self._hub.producer().flush(self._last, timeout)
        said, self._decisions = self._decisions, []
        for decision in said:
            self._heard(decision)

    def close(self) -> None:
        """The producer is shared."""


class _FleetConsumer:
    def __init__(self, hub: Hub, fleet: str) -> None:
        self._hub, self._fleet = hub, fleet

    def poll(self, timeout: float) -> list[Record]:
        return self._hub.take(self._fleet)

    def commit(self, record: Record | None = None) -> None:
        """The fleet's memory says how far it is."""

    def close(self) -> None:
        """The reader is shared."""

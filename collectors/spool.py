"""Snapshots on their way to the bus: kept in order in memory while it is away, up to a bound."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping

from prometheus_client import Counter, Gauge

from trimtab.bus import Bus, Producer
from trimtab.errors import Unavailable
from trimtab.messages import TELEMETRY, Snapshot

log = logging.getLogger(__name__)

WAITING = Gauge("trimtab_collect_spool_snapshots", "Snapshots that the bus has not acknowledged yet.")
DELIVERED = Counter("trimtab_collect_delivered", "Snapshots that the bus has acknowledged.")
LOST = Counter("trimtab_collect_lost", "Snapshots dropped because the bus was away for longer than the spool can hold.")
AWAY = Gauge("trimtab_collect_bus_away", "1 while the bus does not take snapshots.")

Item = tuple[Snapshot, Mapping[str, bytes]]

# Longer than a producer keeps trying by itself (two minutes): after that its messages have failed for good, and sending them
# again neither repeats nor reorders them.
FLUSH_SECONDS = 130.0
# A batch that takes longer than this is worth a word.
SLOW_SECONDS = 5.0
BATCH = 500


class Spool:
    """Delivers snapshots in the order they were put, in a thread of its own: a slow or absent broker holds up no scrape.

    At least once: a snapshot leaves the spool when the bus has acknowledged it. Past `most_series` values waiting, the oldest
    snapshots are lost, counted and logged.
    """

    def __init__(self, bus: Bus, most_series: int, retry_seconds: float = 0.5) -> None:
        self._bus, self._most, self._retry = bus, most_series, retry_seconds
        self._items: deque[Item] = deque()
        self._weight = 0
        self._sending = 0  # the first so many items are with the producer: they are not dropped
        self._changed = threading.Condition()
        self._stopping = False
        self._since: float | None = None  # when the batch that is with the producer was given to it
        self._away = False
        self._lost_since = 0
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    @property
    def broken(self) -> bool:
        """Whether the delivering thread died of an error that it does not know (it is in the log)."""
        return self._broken

    def put(self, snapshot: Snapshot, headers: Mapping[str, bytes]) -> None:
        """Hands a snapshot over; returns at once."""
        with self._changed:
            self._items.append((snapshot, headers))
            self._weight += _weight(snapshot)
            while self._weight > self._most and len(self._items) > self._sending + 1:
                self._weight -= _weight(self._items[self._sending][0])
                del self._items[self._sending]
                self._lost_since += 1
                LOST.inc()
                if self._lost_since == 1:
                    log.error(
                        "the bus is away and the spool is full (%d values): the oldest snapshots are being lost", self._most
                    )
            WAITING.set(len(self._items))
            if self._since is not None and time.monotonic() - self._since > SLOW_SECONDS:
                self._say_away(f"the bus has not taken snapshots for {SLOW_SECONDS:.0f} s")
            self._changed.notify()

    def stop(self, timeout: float) -> int:
        """Delivers what it can within `timeout` seconds and stops; returns how many snapshots were left behind."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout)
        with self._changed:
            left = len(self._items)
        if left:
            log.error("stopped with %d snapshots that the bus has not taken", left)
        return left

    def _run(self) -> None:
        try:
            self._deliver_all()
        except Exception:
            self._broken = True
            log.exception("snapshots can no longer be delivered")

    def _deliver_all(self) -> None:
        producer: Producer | None = None
        while (batch := self._next()) is not None:
            try:
                producer = producer or self._connect()
                self._deliver(producer, batch)
            except Unavailable as error:
                self._miss(error)
                if producer:
                    producer.close()
                producer = None
                with self._changed:
                    if self._stopping:
                        return
                time.sleep(self._retry)
        if producer:
            producer.close()

    def _connect(self) -> Producer:
        self._bus.ensure_topics()
        return self._bus.producer()

    def _next(self) -> list[Item] | None:
        """The oldest snapshots, waiting for one; None when all is delivered and the spool stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._stopping)
            batch = [item for item, _ in zip(self._items, range(BATCH), strict=False)]
            self._sending, self._since = len(batch), time.monotonic()
            return batch or None

    def _deliver(self, producer: Producer, batch: list[Item]) -> None:
        sent, failure = 0, None
        for snapshot, headers in batch:
            try:
                producer.send(TELEMETRY, snapshot, headers)
            except Unavailable as error:  # this one and all after it are not with the producer
                failure = error
                break
            sent += 1
        if sent:
            producer.flush(FLUSH_SECONDS)
        with self._changed:
            for _ in range(sent):
                self._weight -= _weight(self._items.popleft()[0])
            self._sending, self._since = 0, None
            WAITING.set(len(self._items))
            DELIVERED.inc(sent)
            if failure:
                raise failure
            self._say_back()

    def _miss(self, error: Unavailable) -> None:
        with self._changed:
            self._sending, self._since = 0, None
            self._say_away(str(error))

    def _say_away(self, why: str) -> None:
        AWAY.set(1)
        if not self._away:  # once, however often it is tried again
            log.warning("%s; %d snapshots wait", why, len(self._items))
        self._away = True

    def _say_back(self) -> None:
        AWAY.set(0)
        if self._away or self._lost_since:
            log.warning("the bus takes snapshots again; %d were lost meanwhile", self._lost_since)
        self._away, self._lost_since = False, 0


def _weight(snapshot: Snapshot) -> int:
    return len(snapshot.series) + 10

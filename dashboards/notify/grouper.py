"""The shell around the grouping: findings and decisions in, updates of incidents out, both on the bus.

What was published is the state: at a start, and after every trouble with the bus, it is read back, and the records after the
last commit are taken again. What was said is then known, so nothing is said twice and nothing is lost.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable

from dashboards.notify import measures, pace
from dashboards.notify.incidents import Incidents
from dashboards.notify.settings import IncidentSettings
from trimtab import tracing
from trimtab.bus import Bus, Consumer, Producer
from trimtab.errors import Unavailable
from trimtab.messages import DECISIONS, FINDINGS, INCIDENTS, IncidentUpdate

log = logging.getLogger("trimtab.notify")

GROUP = "trimtab-notify"
_POLL_SECONDS = 0.5


class Grouper:
    """Groups until `stop` is set. One process only: two would each see half of an incident. `clock` gives unix seconds."""

    def __init__(
        self, bus: Bus, settings: IncidentSettings, stop: threading.Event, clock: Callable[[], float] = time.time
    ) -> None:
        self._bus, self._settings, self._stop, self._clock = bus, settings, stop, clock

    def run(self) -> None:
        """Works until `stop`; the bus may come and go."""
        failures = 0
        while not self._stop.is_set():
            try:
                self._session()
            except Unavailable as error:
                failures += 1
                pause = pace.pause(failures, 0.5, 15.0, random.random())
                log.warning("%s; trying again in %.1f s", error, pause)
                self._stop.wait(pause)

    def _session(self) -> None:
        incidents = Incidents(self._settings)
        incidents.restore(published(self._bus), self._clock())
        producer = self._bus.producer()
        consumer = self._bus.consumer([FINDINGS, DECISIONS], group=GROUP)
        try:
            while not self._stop.is_set():
                self._once(incidents, producer, consumer)
        finally:
            consumer.close()
            producer.close()

    def _once(self, incidents: Incidents, producer: Producer, consumer: Consumer) -> None:
        records = consumer.poll(_POLL_SECONDS)
        for record in records:
            if updates := incidents.add(record.message, self._clock()):
                with tracing.span("group", record.headers, incident=updates[-1].incident.id):
                    _send(producer, updates)
        if not records:  # only when all is read is it as late as the clock says
            _send(producer, incidents.tick(self._clock()))
        producer.flush()
        if records:
            consumer.commit()
        measures.OPEN.set(len(incidents.open()))


def published(bus: Bus) -> list[IncidentUpdate]:
    """All updates that the topic still holds, oldest first."""
    return [record.message for record in bus.read_all([INCIDENTS]) if isinstance(record.message, IncidentUpdate)]


def _send(producer: Producer, updates: Iterable[IncidentUpdate]) -> None:
    for update in updates:
        measures.UPDATES.labels(update.happening).inc()
        log.info("%s: %s", update.title, update.text)
        producer.send(INCIDENTS, update, tracing.headers())

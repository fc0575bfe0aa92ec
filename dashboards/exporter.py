"""`trimtab metrics`: reads the topics and serves what they say to Prometheus. Changes nothing and commits nothing."""

from __future__ import annotations

import logging
import threading
import time

from prometheus_client import REGISTRY

from dashboards.families import Families
from dashboards.lag import LagWatch
from dashboards.observed import Observed
from dashboards.settings import AlarmSettings, MetricsSettings
from trimtab import selfmetrics
from trimtab.bus import Bus, BusSettings, Consumer
from trimtab.errors import Unavailable
from trimtab.messages import DECISIONS, FINDINGS, FLEETS, MODELS, SCORES, STATES

log = logging.getLogger(__name__)

_RETRY_SECONDS = 2.0
# Few and needed from their beginning: which fleets there are, what is open, what was last decided.
HISTORY = (FLEETS, MODELS, FINDINGS, DECISIONS)
# Many, and only the newest counts.
LIVE = (SCORES, STATES)


def run(bus: Bus, metrics: MetricsSettings, alarm: AlarmSettings, stop: threading.Event, *, host: str, port: int) -> None:
    """Serves until `stop` is set; a bus that is away is waited for, and what was observed stays until it is too old."""
    observed, lock = Observed(metrics, alarm.alarm, time.time()), threading.Lock()
    families = Families(observed, lock)
    REGISTRY.register(families)
    try:
        log.info("metrics at http://%s:%d/metrics", host, selfmetrics.serve("metrics", port, host))
        while not stop.is_set():
            try:
                _follow(bus, observed, lock, stop)
            except Unavailable as error:
                log.warning("%s", error)
                stop.wait(_RETRY_SECONDS)
    finally:
        REGISTRY.unregister(families)


def _follow(bus: Bus, observed: Observed, lock: threading.Lock, stop: threading.Event) -> None:
    bus.ensure_topics()
    live = bus.consumer(LIVE, group=None, start="latest")
    history = bus.consumer(HISTORY, group=None, forgotten=True)
    try:
        while not stop.is_set():
            for consumer, wait in ((history, 0.05), (live, 0.2)):
                _drain(consumer, wait, observed, lock)
    finally:
        live.close()
        history.close()


def _drain(consumer: Consumer, wait: float, observed: Observed, lock: threading.Lock) -> None:
    records = consumer.poll(wait)
    with lock:
        for record in records:
            observed.take(record.topic, record.message)


def watch_lag(bus: BusSettings, metrics: MetricsSettings) -> LagWatch:
    """Starts reading the groups' offsets."""
    watch = LagWatch(bus, metrics.lag_seconds)
    watch.start()
    return watch

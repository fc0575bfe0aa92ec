"""How far Trimtab's readers are behind on Kafka, and how many messages were rejected."""

from __future__ import annotations

import logging
import threading
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from prometheus_client import Counter, Gauge

from trimtab.bus import BusSettings, rejected
from trimtab.messages import TOPICS

log = logging.getLogger(__name__)

LAG = Gauge("trimtab_consumer_lag_records", "Records that a group has not committed yet.", ["group", "topic"])
REJECTED = Gauge("trimtab_rejected_records", "Records that were ever put on a rejected topic.", ["topic"])
FAILURES = Counter("trimtab_metrics_lag_failures", "Times that Kafka did not say how far the groups are.")
PREFIX = "trimtab-"


class LagWatch:
    """Reads the groups' offsets every `every` seconds in a thread of its own; a broker that is away is counted and waited for."""

    def __init__(self, settings: BusSettings, every: float) -> None:
        self._settings, self._every = settings, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lag", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends within a request's time."""
        self._stop.set()
        self._thread.join(self._settings.timeout_seconds)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except KafkaError as error:
                FAILURES.inc()
                log.warning("the lag of the groups is unknown: %s", type(error).__name__)
                LAG.clear()  # unknown, not as it was
                self._stop.wait(self._every)

    def _watch(self) -> None:
        common: dict[str, Any] = {
            "bootstrap_servers": self._settings.bootstrap.split(","),
            "bootstrap_timeout_ms": int(self._settings.timeout_seconds * 1000),
            "client_id": "trimtab-metrics",
        }
        admin = KafkaAdminClient(**common)
        consumer = KafkaConsumer(**common)
        try:
            while not self._stop.is_set():
                _show_lag(admin, consumer)
                _show_rejected(consumer)
                self._stop.wait(self._every)
        finally:
            consumer.close()
            admin.close()


def _show_lag(admin: Any, consumer: Any) -> None:
    groups = [name for group in admin.list_groups() if (name := str(group["group_id"])).startswith(PREFIX)]
    committed = admin.list_group_offsets(groups) if groups else {}
    ends = consumer.end_offsets(sorted({partition for offsets in committed.values() for partition in offsets}))
    for group, offsets in committed.items():
        behind: dict[str, int] = {}
        for partition, at in offsets.items():
            if at.offset >= 0:
                behind[partition.topic] = behind.get(partition.topic, 0) + max(0, ends[partition] - at.offset)
        for topic, records in behind.items():
            LAG.labels(group, topic).set(records)


def _show_rejected(consumer: Any) -> None:
    for topic in TOPICS:
        name = rejected(topic)
        partitions = [TopicPartition(name, number) for number in consumer.partitions_for_topic(name) or ()]
        REJECTED.labels(topic).set(sum(consumer.end_offsets(partitions).values()) if partitions else 0)

"""The bus on Kafka, through kafka-python."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata

from trimtab.bus import COMPACTED, BusSettings, Consumer, Producer, Record, Start, rejected, topic_settings
from trimtab.codec import decode, encode
from trimtab.errors import Unavailable, Undecodable
from trimtab.messages import Forgotten, Message, key_of

log = logging.getLogger(__name__)


class KafkaBus:
    """See `Bus`."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings

    def ensure_topics(self) -> None:
        settings = self._settings
        with _translated(settings):
            admin = KafkaAdminClient(**_common(settings))
            try:
                missing = sorted(set(topic_settings(settings)) - set(admin.list_topics()))
                wanted = {
                    topic: {
                        "num_partitions": settings.partitions,
                        "replication_factor": settings.replication,
                        "configs": topic_settings(settings)[topic],
                    }
                    for topic in missing
                }
                if wanted:
                    # Another process may create them at the same moment: then they exist, which is what was asked for.
                    with contextlib.suppress(TopicAlreadyExistsError):
                        admin.create_topics(wanted, wait_for_metadata=True)
            finally:
                admin.close()

    def producer(self) -> Producer:
        with _translated(self._settings):
            return _KafkaProducer(self._settings)

    def consumer(
        self, topics: Sequence[str], *, group: str | None, start: Start = "earliest", forgotten: bool = False
    ) -> Consumer:
        with _translated(self._settings):
            return _KafkaConsumer(self._settings, topics, group, start, forgotten)

    def read_all(self, topics: Sequence[str], since: float | None = None, until: float | None = None) -> list[Record]:
        with _translated(self._settings):
            consumer = _KafkaConsumer(self._settings, topics, None, "earliest")
        try:
            return consumer.read_all(since, until)
        finally:
            consumer.close()


class _QuietAtExit(KafkaProducer):  # type: ignore[misc]
    """kafka-python closes a forgotten producer at exit and in its destructor, and lets what fails then end as a traceback."""

    def close(self, timeout: float | None = None, null_logger: bool = False) -> None:
        try:
            super().close(timeout, null_logger)
        except KafkaError:
            if not null_logger:  # which only those two ask for
                raise


class _KafkaProducer:
    """Idempotent, acks=all: retries neither lose, repeat nor reorder."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._failed: list[str] = []
        self._producer = _QuietAtExit(
            **_common(settings),
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            linger_ms=2,
            delivery_timeout_ms=120_000,
            max_block_ms=int(settings.timeout_seconds * 1000),
        )

    def send(self, topic: str, message: Message, headers: Mapping[str, bytes] | None = None) -> None:
        self.send_raw(topic, key_of(message).encode(), encode(message), headers)

    def forget(self, topic: str, fleet: str) -> None:
        self.send_raw(topic, fleet.encode(), None, None)

    def send_raw(self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] | None) -> None:
        with _translated(self._settings):
            sent = self._producer.send(topic, key=key, value=value, headers=list((headers or {}).items()))
            sent.add_errback(lambda error: self._failed.append(str(error)))

    def flush(self, timeout: float = 10.0) -> None:
        with _translated(self._settings):
            self._producer.flush(timeout=timeout)
        if self._failed:
            failed, self._failed = self._failed, []
            raise Unavailable(f"Kafka at {self._settings.bootstrap} did not take {len(failed)} messages: {failed[0]}")

    def close(self) -> None:
        with contextlib.suppress(KafkaError):
            self._producer.close(timeout=self._settings.timeout_seconds)


class _KafkaConsumer:
    def __init__(
        self, settings: BusSettings, topics: Sequence[str], group: str | None, start: Start, forgotten: bool = False
    ) -> None:
        self._settings, self._group, self._forgotten = settings, group, forgotten
        self._rejects: _KafkaProducer | None = None
        self._processed: dict[TopicPartition, OffsetAndMetadata] = {}
        self._consumer = KafkaConsumer(
            **_common(settings),
            group_id=group,
            auto_offset_reset=start,
            enable_auto_commit=False,
            fetch_max_wait_ms=100,
            max_poll_records=2000,
            session_timeout_ms=10_000,
        )
        if group:
            self._consumer.subscribe(list(topics))
        else:
            self._assign_all(topics, start)

    def _assign_all(self, topics: Sequence[str], start: Start) -> None:
        partitions = [TopicPartition(topic, number) for topic in topics for number in self._partitions_of(topic)]
        self._consumer.assign(partitions)
        if start == "earliest":
            self._consumer.seek_to_beginning(*partitions)
        else:
            # Resolved now, not at the first poll: "latest" means from this moment on.
            for partition, end in self._consumer.end_offsets(partitions).items():
                self._consumer.seek(partition, end)

    def _partitions_of(self, topic: str) -> list[int]:
        deadline = time.monotonic() + self._settings.timeout_seconds
        while time.monotonic() < deadline:
            found = self._consumer.partitions_for_topic(topic)
            if found:
                return sorted(found)
            time.sleep(0.05)
        raise Unavailable(f"Kafka at {self._settings.bootstrap} has no topic {topic}")

    def poll(self, timeout: float) -> list[Record]:
        with _translated(self._settings):
            batches = self._consumer.poll(timeout_ms=int(timeout * 1000))
        records = [record for raw in itertools.chain.from_iterable(batches.values()) if (record := self._read(raw))]
        for partition, raws in batches.items():
            self._processed[partition] = OffsetAndMetadata(raws[-1].offset + 1, "", -1)
        # Partitions arrive one after the other; across them, time is the best order there is.
        return sorted(records, key=lambda record: record.time)

    def _read(self, raw: Any) -> Record | None:
        headers = dict(raw.headers)
        if raw.value is None and raw.topic in COMPACTED:
            return self._read_forgotten(raw, headers)
        try:
            message = decode(raw.topic, raw.value or b"")
        except Undecodable as error:
            log.warning("%s[%d]@%d rejected: %s", raw.topic, raw.partition, raw.offset, error)
            self._reject(raw, {**headers, "reason": str(error).encode()})
            return None
        return Record(raw.topic, raw.partition, raw.offset, raw.timestamp / 1000, message, headers)

    def _read_forgotten(self, raw: Any, headers: dict[str, bytes]) -> Record | None:
        if not self._forgotten:
            return None
        message = Forgotten(fleet=(raw.key or b"").decode(errors="replace"))
        return Record(raw.topic, raw.partition, raw.offset, raw.timestamp / 1000, message, headers)

    def _reject(self, raw: Any, headers: dict[str, bytes]) -> None:
        if self._group is None:
            return  # Readers without a group only look: the group that processes the topic writes the rejects, once.
        self._rejects = self._rejects or _KafkaProducer(self._settings)
        self._rejects.send_raw(rejected(raw.topic), raw.key, raw.value, headers)

    def read_all(self, since: float | None, until: float | None) -> list[Record]:
        """What the assigned partitions hold now, of that time."""
        deadline = time.monotonic() + self._settings.timeout_seconds
        records: list[Record] = []
        with _translated(self._settings):
            ends = self._consumer.end_offsets(list(self._consumer.assignment()))
            if since is not None:
                for partition, first in self._first_from(since, ends).items():
                    self._consumer.seek(partition, first)
            if until is not None:
                ends = self._first_from(until, ends)
            while any(self._consumer.position(partition) < end for partition, end in ends.items()):
                if new := self.poll(0.1):
                    records += new
                    deadline = time.monotonic() + self._settings.timeout_seconds
                elif time.monotonic() > deadline:
                    raise Unavailable(f"Kafka at {self._settings.bootstrap} does not give what its topics hold")
        asked = (r for r in records if (since is None or r.time >= since) and (until is None or r.time < until))
        return sorted(asked, key=lambda record: record.time)

    def _first_from(self, time: float, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """For each partition the offset of the first record that is not older; its end when there is none."""
        found = self._consumer.offsets_for_times(dict.fromkeys(ends, int(time * 1000)))
        return {partition: found[partition].offset if found.get(partition) else end for partition, end in ends.items()}

    def commit(self, record: Record | None = None) -> None:
        if self._rejects:
            self._rejects.flush()
        processed = self._processed
        if record is not None:
            processed = {TopicPartition(record.topic, record.partition): OffsetAndMetadata(record.offset + 1, "", -1)}
        if self._group and processed:
            with _translated(self._settings):
                self._consumer.commit(processed)
        if record is None:
            self._processed = {}

    def close(self) -> None:
        with contextlib.suppress(KafkaError):
            self._consumer.close(autocommit=False)
        if self._rejects:
            self._rejects.close()


def _common(settings: BusSettings) -> dict[str, Any]:
    return {
        "bootstrap_servers": settings.bootstrap.split(","),
        "request_timeout_ms": int(max(settings.timeout_seconds, 11) * 1000),  # must exceed the session timeout of a group
        "bootstrap_timeout_ms": int(settings.timeout_seconds * 1000),
        "reconnect_backoff_max_ms": 1000,
        "client_id": "trimtab",
    }


@contextlib.contextmanager
def _translated(settings: BusSettings) -> Iterator[None]:
    """The one boundary where Kafka's many errors become ours."""
    try:
        yield
    except KafkaTimeoutError as error:
        raise Unavailable(f"Kafka at {settings.bootstrap} does not answer: {error}") from error
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.bootstrap}: {type(error).__name__}: {error}") from error

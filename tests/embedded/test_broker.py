"""The broker's jars are the pinned ones, and a real broker keeps what it was given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded import broker, java
from trimtab.errors import Missing, Unavailable


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    java._jar.cache_clear()
    yield tmp_path
    java._jar.cache_clear()


def _put(cache: Path, content: bytes) -> tuple[Path, dict[str, str]]:
    path = cache / "maven" / "org" / "example" / "tool" / "1.0" / "tool-1.0.jar"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path, {"org.example:tool:1.0": hashlib.sha256(b"the pinned file").hexdigest()}


def test_a_cached_jar_with_the_pinned_hash_needs_no_network(cache: Path) -> None:
    path, pinned = _put(cache, b"the pinned file")
    assert java.jars("any", pinned) == [path]


def test_a_wrong_hash_is_refused_in_words_and_removed(cache: Path) -> None:
    path, pinned = _put(cache, b"something else")
    with pytest.raises(Missing, match=r"org\.example:tool:1\.0 is not the pinned file.*trimtab doctor"):
        java.jars("any", pinned)
    assert not path.exists()


def test_a_jar_that_cannot_be_fetched_is_missing_in_words(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("requests.sessions.Session.request", no_network)
    with pytest.raises(Missing, match=r"org\.example:tool:1\.0 could not be fetched.*trimtab doctor"):
        java.jars("any", {"org.example:tool:1.0": "0" * 64})


def test_the_lock_pins_what_the_roots_name() -> None:
    lock = java.lock()
    for name, roots in java.ROOTS.items():
        assert set(roots) <= set(lock[name])
        assert all(len(sha256) == 64 for sha256 in lock[name].values())


@pytest.mark.integration
def test_nobody_listening_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 did not answer"):
        broker.wait_ready("127.0.0.1:1", timeout=0.5)


def test_the_broker_listens_on_loopback_only(tmp_path: Path) -> None:
    folder = broker._written(tmp_path, 9092, 9093)
    listeners = [line for line in (folder / "server.properties").read_text().splitlines() if "listeners=" in line]
    assert listeners
    assert all("//127.0.0.1:" in part for line in listeners for part in line.split("=")[1].split(","))


@pytest.mark.integration
def test_a_restart_on_the_same_folder_keeps_topics_and_messages(make_broker: Callable[[Path], Any], tmp_path: Path) -> None:
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import NewTopic

    running = make_broker(tmp_path / "kafka")
    admin = KafkaAdminClient(bootstrap_servers=running.bootstrap)
    admin.create_topics([NewTopic("kept", num_partitions=1, replication_factor=1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=running.bootstrap)
    producer.send("kept", b"one").get(10)
    producer.close()

    running.stop()
    broker.format_storage(running.folder, running.port, running.controller_port)
    running.start()

    consumer = KafkaConsumer(bootstrap_servers=running.bootstrap, auto_offset_reset="earliest")
    consumer.assign([TopicPartition("kept", 0)])
    records = consumer.poll(timeout_ms=15000)
    consumer.close()
    running.stop()
    assert [record.value for batch in records.values() for record in batch] == [b"one"]


@pytest.mark.integration
def test_a_misspelt_topic_is_not_created(kafka: str) -> None:
    from kafka import KafkaAdminClient, KafkaProducer

    producer = KafkaProducer(bootstrap_servers=kafka, max_block_ms=1500)
    with pytest.raises(Exception, match=r"(?i)topic|timeout|metadata"):
        producer.send("trimtab.telemetri", b"x").get(2)
    producer.close(timeout=1)
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    assert "trimtab.telemetri" not in admin.list_topics()
    admin.close()

"""The bus: messages on topics, in order per key, delivered at least once.

What every bus promises (and one contract suite holds over all): a message that was flushed is not lost; records of one key
come in the order they were sent; a group resumes after its last commit; bytes that do not decode never reach a reader but
go to ``<topic>.rejected`` with the reason in a header, and the stream goes on; a fleet that was forgotten is neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import Field

from trimtab.messages import FLEETS, MODELS, TOPICS, Message
from trimtab.settings import Section

COMPACTED = frozenset((FLEETS, MODELS))
"""Topics that say the newest truth per key. A key without a value there says that its fleet is forgotten."""

Start = Literal["earliest", "latest"]


class BusSettings(Section, name="kafka"):
    """How to reach Kafka and how long it keeps things."""

    bootstrap: str = Field("127.0.0.1:9092", description="Address of any broker, host:port[,host:port]. Default: this machine.")
    partitions: int = Field(
        4,
        ge=1,
        description="Partitions of a topic that Trimtab creates. Order holds per key; more partitions let more readers share.",
    )
    replication: int = Field(1, ge=1, description="Copies of each partition. 1 fits a single broker; use 3 in production.")
    retention_seconds: int = Field(
        86_400,
        ge=60,
        description="How long telemetry, scores, findings and decisions are kept, in seconds. Replays reach this far back.",
    )
    timeout_seconds: float = Field(
        10.0, gt=0, description="How long a request waits for the broker before it counts as away, in seconds."
    )


@dataclass(frozen=True)
class Record:
    """One message as it was read: where it stood, and the headers that came with it."""

    topic: str
    partition: int
    offset: int
    time: float
    message: Message
    headers: dict[str, bytes] = field(default_factory=dict)


class Producer(Protocol):
    """Sends messages. Not for several threads at once."""

    def send(self, topic: str, message: Message, headers: Mapping[str, bytes] | None = None) -> None:
        """Queues a message under its key; returns before it is delivered."""

    def forget(self, topic: str, fleet: str) -> None:
        """Queues that a compacted topic holds nothing of this fleet any more, in order with what is sent under that key."""

    def flush(self, timeout: float = 10.0) -> None:
        """Returns when everything queued is acknowledged; raises `Unavailable` when it is not within `timeout` seconds."""

    def close(self) -> None:
        """Flushes what it can and lets go."""


class Consumer(Protocol):
    """Reads messages. A member of a group shares the partitions; without a group it reads all and commits nothing."""

    def poll(self, timeout: float) -> list[Record]:
        """What has come, waiting up to `timeout` seconds for the first. Empty when nothing came."""

    def commit(self, record: Record | None = None) -> None:
        """Everything returned by `poll` so far is processed: a restart goes on after it.

        With a `record`, only what its partition gave up to and including it.
        """

    def close(self) -> None:
        """Leaves the group without committing."""


class Bus(Protocol):
    """A way to reach the topics."""

    def ensure_topics(self) -> None:
        """Creates every topic of Trimtab that does not exist yet, each with its ``.rejected``."""

    def producer(self) -> Producer:
        """A new producer."""

    def consumer(
        self, topics: Sequence[str], *, group: str | None, start: Start = "earliest", forgotten: bool = False
    ) -> Consumer:
        """A new consumer; `start` says where to read from when the group has no commit yet (or there is no group).

        Fleets that were forgotten are passed over, or come as `Forgotten` where that is asked for.
        """

    def read_all(self, topics: Sequence[str], since: float | None = None, until: float | None = None) -> list[Record]:
        """Everything that the topics hold at this moment, in order of time; commits nothing.

        Only records written from `since` on and before `until` (unix seconds), as far as that is given.
        """


def rejected(topic: str) -> str:
    """Where the undecodable messages of a topic go."""
    return f"{topic}.rejected"


def topic_settings(settings: BusSettings) -> dict[str, dict[str, str]]:
    """Every topic and its configuration. What says the newest truth per key is compacted; everything else is kept for a time."""
    kept = {"retention.ms": str(settings.retention_seconds * 1000)}
    compacted = {"cleanup.policy": "compact"}
    topics = {topic: compacted if topic in COMPACTED else kept for topic in TOPICS}
    return topics | {rejected(topic): kept for topic in TOPICS}


def connect(settings: BusSettings) -> Bus:
    """The Kafka bus; nothing is sent before it is used."""
    from trimtab.kafka_bus import KafkaBus

    return KafkaBus(settings)

"""One fleet's place in the stream: its pipeline, and what must be kept so that a restart goes on exactly where it was.

What is kept is the last dump of the pipeline plus a journal of what it was told since. Both lie in Flink's keyed state, so a
checkpoint holds them as of the same moment as the Kafka offsets. The journal makes every event durable for the price of its
own bytes; the dump, which is larger, is written only every few seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from detectors import models_store
from detectors.models_store import Models
from detectors.pipeline import Output, Pipeline
from detectors.settings import DetectSettings
from trimtab import tracing
from trimtab.bus import COMPACTED, rejected
from trimtab.codec import decode, encode
from trimtab.errors import Missing, TrimtabError, Undecodable
from trimtab.messages import FINDINGS, FLEETS, SCORES, DetectorModel, FleetSpec, Forgotten, Message, Snapshot

log = logging.getLogger(__name__)

DUMP_SECONDS = 2.0
"""Longest stretch of journal: a restart replays at most this much, and the state stays small."""


class Incoming(NamedTuple):
    """A record as it was read."""

    topic: str
    key: bytes | None
    value: bytes | None
    traceparent: bytes | None = None


class Outgoing(NamedTuple):
    """A record to be written: rejected ones carry the reason, the others the context of their trace."""

    topic: str
    key: bytes | None
    value: bytes | None
    traceparent: bytes | None = None
    reason: bytes | None = None


class Store(Protocol):
    """Where a fleet's state is kept. Flink's keyed state, or memory in tests."""

    def dumped(self) -> bytes | None:
        """The last dump, None before the first."""

    def journal(self) -> Iterable[bytes]:
        """The entries since the last dump, oldest first."""

    def model(self) -> bytes | None:
        """The last `DetectorModel` that was taken over, as it was read."""

    def append(self, entry: bytes) -> None:
        """Adds to the journal."""

    def replace(self, dump: bytes) -> None:
        """Keeps a new dump and empties the journal."""

    def keep_model(self, message: bytes) -> None:
        """Keeps the `DetectorModel` that is in use."""


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    now: float
    snapshot: bytes = b""  # empty: only time passed


def read(record: Incoming) -> Message | Outgoing | None:
    """The message in a record, or the rejected record with the reason.

    A fleet that was deleted is `Forgotten`; None for a model that was: the one in use stays.
    """
    if record.value is None and record.topic in COMPACTED:
        return Forgotten(fleet=fleet_in(record.key)) if record.topic == FLEETS else None
    try:
        message = decode(record.topic, record.value or b"")
    except Undecodable as error:
        return _reject(record, str(error))
    return message if getattr(message, "fleet", "") else _reject(record, "names no fleet")


def fleet_in(key: bytes | None) -> str:
    """The fleet of a record that is only a key."""
    return (key or b"").decode(errors="replace")


def _reject(record: Incoming, reason: str) -> Outgoing:
    return Outgoing(rejected(record.topic), record.key, record.value, record.traceparent, reason.encode())


class Fleet:
    """Restores itself from `store` and then takes records and the passing of time; `now` is unix seconds."""

    def __init__(self, name: str, settings: DetectSettings, store: Store) -> None:
        self._name, self._settings, self._store = name, settings, store
        self._traces: dict[str | None, bytes] = {}
        self._dumped_at = self._now = 0.0
        self._pipeline = self._restored()

    def on_record(self, record: Incoming, message: Message, now: float) -> list[Outgoing]:
        """Takes one record, decoded by `read`, and returns what is to be written for it."""
        self._now = max(self._now, now)  # a clock may step back; for the pipeline time does not
        try:
            if isinstance(message, Snapshot):
                return self._on_snapshot(record, message)
            self._on_control(record, message)
        except Exception as error:  # one bad record must not stop the stream for ever; its bytes and the reason are kept
            log.exception("fleet %s: a record of %s could not be processed", self._name, record.topic)
            return [_reject(record, f"could not be processed: {type(error).__name__}: {error}")]
        return []

    def on_time(self, now: float) -> list[Outgoing]:
        """Time has passed: ticks may be complete, silence may have become evidence."""
        self._now = max(self._now, now)
        if self._now - self._dumped_at >= DUMP_SECONDS:
            self._dump()
        self._store.append(msgspec.msgpack.encode(_Entry(self._now)))
        try:
            return self._outgoing(self._pipeline.on_time(self._now))
        except Exception:  # as above: better no scores for this moment than no detection at all
            log.exception("fleet %s: the passing of time could not be processed", self._name)
            return []

    def _on_snapshot(self, record: Incoming, snapshot: Snapshot) -> list[Outgoing]:
        if snapshot.time > self._now + self._settings.future:
            ahead = f"{snapshot.time - self._now:.1f} s in the future, more than {self._settings.future:g} s"
            return [_reject(record, f"the snapshot is {ahead}: a clock is wrong")]
        if record.traceparent:
            self._traces[snapshot.target] = self._traces[None] = record.traceparent
        self._store.append(msgspec.msgpack.encode(_Entry(self._now, record.value or b"")))
        return self._outgoing(self._pipeline.on_snapshot(snapshot, self._now))

    def _on_control(self, record: Incoming, message: Message) -> None:
        if isinstance(message, FleetSpec):
            self._pipeline.on_spec(message)
        elif isinstance(message, DetectorModel):
            models = _load(message)
            if models is None:
                return
            self._pipeline.use(models)
            self._store.keep_model(record.value or b"")
        self._dump()

    def _dump(self) -> None:
        self._store.replace(self._pipeline.dump())
        self._dumped_at = self._now

    def _restored(self) -> Pipeline:
        kept = self._store.model()
        models = _load(msgspec.json.decode(kept, type=DetectorModel)) if kept else None
        data = self._store.dumped()
        try:
            pipeline = Pipeline.restore(data, self._settings, models) if data else None
        except Undecodable as error:
            log.error("fleet %s: what was kept of it cannot be used, it starts anew: %s", self._name, error)
            pipeline = None
        pipeline = pipeline or Pipeline(self._name, self._settings, models)
        for raw in self._store.journal():
            entry = msgspec.msgpack.decode(raw, type=_Entry)
            self._now = max(self._now, entry.now)
            # What these led to was written before the checkpoint completed, so it is not written again.
            try:
                if entry.snapshot:
                    pipeline.on_snapshot(msgspec.json.decode(entry.snapshot, type=Snapshot), entry.now)
                else:
                    pipeline.on_time(entry.now)
            except Exception:  # it failed the first time too, and was rejected then
                log.exception("fleet %s: a journal entry could not be replayed", self._name)
        return pipeline

    def _outgoing(self, output: Output) -> list[Outgoing]:
        fleet = self._name.encode()
        newest = self._traces.get(None)
        outgoing = [Outgoing(SCORES, fleet, encode(score), self._traces.get(score.target, newest)) for score in output.scores]
        if output.findings:
            cause = output.findings[0]
            parent = self._traces.get(cause.target, newest)
            with tracing.span(
                "detect",
                {"traceparent": parent} if parent else None,
                fleet=self._name,
                findings=len(output.findings),
                kind=cause.kind,
            ):
                context = tracing.headers().get("traceparent", parent)
                outgoing += [Outgoing(FINDINGS, fleet, encode(finding), context) for finding in output.findings]
        return outgoing


def _load(message: DetectorModel) -> Models | None:
    """The models a message names; None, and a line in the log, when they are not there or not what was published."""
    try:
        folder = Path(message.path)
        if (folder / models_store.DIGEST).read_text().strip() != message.digest:
            raise Missing(f"{folder} does not hold the model that was published")
        models = models_store.load(folder)
    except (TrimtabError, OSError, ValueError) as error:
        log.error("fleet %s: model %s is not used: %s", message.fleet, message.digest[:12], error)
        return None
    log.info("fleet %s: model %s is in use", message.fleet, message.digest[:12])
    return models

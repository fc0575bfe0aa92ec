"""Reads the topics during a run, folds them into a `Recording` and keeps the raw records that a replay needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from embedded.recording import Note, NoteKind, Recording
from trimtab.bus import Bus, Record
from trimtab.messages import DECISIONS, FINDINGS, FLEETS, STATES, TOPICS, FleetSpec, Snapshot

_POLL_SECONDS = 0.25
_LAST_SECONDS = 2.0
"""How long it still reads after `stop` when records keep coming."""


class Recorder:
    """A thread with a consumer of its own on all topics, for the records from unix time `since` on; it commits nothing.

    `records.jsonl` gets one line per record: ``{"topic", "partition", "offset", "time", "message"}``: everything but
    scores, models and the telemetry of replicas and GPUs, which a replay of decisions does not read.
    """

    def __init__(self, bus: Bus, spec: FleetSpec, records: Path, since: float = 0.0) -> None:
        self._bus, self._since = bus, since
        self._recording = Recording(spec)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._records = records
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self.error: str | None = None
        """Why the recorder gave up, in words; None while all is well."""

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """The recording, held still while it is looked at."""
        with self._lock:
            yield self._recording

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def note(self, kind: NoteKind, words: str, **detail: object) -> Note:
        """Adds a line to the events of the run, now."""
        with self._lock:
            return self._recording.note(time.time(), kind, words, **detail)

    def clock_starts(self, zero: float) -> None:
        """Says which unix time is scenario time zero."""
        with self._lock:
            self._recording.zero = zero

    def stop(self, timeout: float = 10.0) -> Recording:
        """Reads what is still there, stops, and gives the recording away."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return self._recording

    def _run(self) -> None:
        try:
            consumer = self._bus.consumer(list(TOPICS), group=None)
            try:
                with self._records.open("wb") as file:
                    last: float | None = None
                    while True:
                        if last is None and self._stopping.is_set():
                            last = time.monotonic() + _LAST_SECONDS
                        found = [record for record in consumer.poll(_POLL_SECONDS) if record.time >= self._since]
                        with self._lock:
                            for record in found:
                                self._recording.add(record.message)
                        file.writelines(line(record) for record in found if kept(record))
                        if last is not None and (not found or time.monotonic() > last):
                            return
            finally:
                consumer.close()
        except Exception as error:  # the run goes on without a recording, and says so
            self.error = f"the recorder stopped: {error}"
            self.note("demo", self.error)


def kept(record: Record) -> bool:
    """Whether a replay needs this record."""
    message = record.message
    return message.role in ("gateway", "app") if isinstance(message, Snapshot) else record.topic in _REPLAYED


_REPLAYED = (FINDINGS, DECISIONS, STATES, FLEETS)


def line(record: Record) -> bytes:
    """A record as one line of JSON."""
    whole = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "time": record.time,
        "message": record.message,
    }
    return msgspec.json.encode(whole) + b"\n"

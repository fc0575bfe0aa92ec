"""Where the records of an incident come from: a finished run's file, or the topics."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from trimtab.bus import Bus, Record
from trimtab.codec import decode
from trimtab.errors import SettingsError, Undecodable
from trimtab.messages import DECISIONS, FINDINGS, FLEETS, SCORES, STATES, TELEMETRY, TOPICS

_SAID = (FINDINGS, DECISIONS)
_AROUND = (TELEMETRY, SCORES, STATES, FLEETS)


class Source(Protocol):
    """Where records come from."""

    def said(self) -> list[Record]:
        """All findings and decisions, in order of time."""

    def around(self, start: float, end: float) -> list[Record]:
        """What else was recorded between two unix times, in order of time."""


class Run:
    """A finished run's folder, or its records.jsonl. Raises `SettingsError` with file and line."""

    def __init__(self, run: Path) -> None:
        self._records = from_run(run)

    def said(self) -> list[Record]:
        """See `Source`."""
        return [record for record in self._records if record.topic in _SAID]

    def around(self, start: float, end: float) -> list[Record]:
        """See `Source`."""
        return [record for record in self._records if record.topic in _AROUND and start <= record.time < end]


class Topics:
    """The topics on the bus: a day of telemetry is not read for an incident of a minute. Raises `Unavailable`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def said(self) -> list[Record]:
        """See `Source`."""
        return self._bus.read_all(_SAID)

    def around(self, start: float, end: float) -> list[Record]:
        """See `Source`."""
        return self._bus.read_all(_AROUND, start, end)


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    topic: str
    partition: int
    offset: int
    time: float
    message: msgspec.Raw


def from_run(run: Path) -> list[Record]:
    """The records of a run's folder (or of the file itself), in order of time. Raises `SettingsError` with file and line."""
    file = run / "records.jsonl" if run.is_dir() else run
    records = []
    try:
        with file.open("rb") as lines:
            for number, text in enumerate(lines, 1):
                # A run that was killed may end in half a line.
                if text.endswith(b"\n") and text.strip():
                    records.append(_record(text, f"{file}:{number}"))
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from error
    return sorted(records, key=lambda record: record.time)


def _record(text: bytes, where: str) -> Record:
    try:
        line = msgspec.json.decode(text, type=_Line)
        if line.topic not in TOPICS:
            raise SettingsError(f"{where}: '{line.topic}' is no topic of Trimtab")
        return Record(line.topic, line.partition, line.offset, line.time, decode(line.topic, bytes(line.message)))
    except (msgspec.DecodeError, Undecodable) as error:
        raise SettingsError(f"{where}: this is no record: {error}") from error

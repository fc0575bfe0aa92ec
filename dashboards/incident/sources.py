"""Where the records of an incident come from: a finished run's file, or the topics."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trimtab.bus import Record
from trimtab.codec import decode
from trimtab.errors import SettingsError, Undecodable
from trimtab.messages import DECISIONS, FINDINGS, FLEETS, SCORES, STATES, TELEMETRY, TOPICS

_READ = (TELEMETRY, SCORES, FINDINGS, DECISIONS, STATES, FLEETS)


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


def from_kafka(bootstrap: str | None, config: Path | None) -> list[Record]:
    """Everything that the topics hold now, in order of time. Raises `Unavailable`."""
    from trimtab import settings
    from trimtab.bus import BusSettings, connect

    chosen = settings.load(BusSettings, config)
    return connect(chosen.model_copy(update={"bootstrap": bootstrap}) if bootstrap else chosen).read_all(_READ)


def _record(text: bytes, where: str) -> Record:
    try:
        line = msgspec.json.decode(text, type=_Line)
        if line.topic not in TOPICS:
            raise SettingsError(f"{where}: '{line.topic}' is no topic of Trimtab")
        return Record(line.topic, line.partition, line.offset, line.time, decode(line.topic, bytes(line.message)))
    except (msgspec.DecodeError, Undecodable) as error:
        raise SettingsError(f"{where}: this is no record: {error}") from error

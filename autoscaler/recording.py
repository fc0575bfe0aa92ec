"""Recorded topics: a file of JSON lines, or Kafka read from its oldest record to its newest."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from autoscaler.reading import TOPICS
from trimtab.bus import Bus, Record
from trimtab.codec import decode, encode
from trimtab.errors import SettingsError, Undecodable
from trimtab.messages import DECISIONS, STATES
from trimtab.messages import TOPICS as ALL_TOPICS

RECORDED = (*TOPICS, STATES, DECISIONS)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One record as a line of JSON. Header values are base64: they are bytes."""

    topic: str
    partition: int
    offset: int
    time: float
    message: msgspec.Raw
    headers: dict[str, str] = {}


def write(path: Path, records: Iterable[Record]) -> int:
    """Writes records, one a line; returns how many."""
    count = 0
    with path.open("wb") as file:
        for record in records:
            line = Line(
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                time=record.time,
                message=msgspec.Raw(encode(record.message)),
                headers={name: base64.b64encode(value).decode() for name, value in record.headers.items()},
            )
            file.write(msgspec.json.encode(line) + b"\n")
            count += 1
    return count


def read(path: Path) -> list[Record]:
    """The records of a file. Raises `SettingsError` with file and line for a line that is none."""
    records = []
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    records.append(_record(text, f"{path}:{number}"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    return records


def from_bus(bus: Bus, quiet_seconds: float = 3.0) -> list[Record]:
    """Every record that the topics held at the start; ends when none of these came for `quiet_seconds`."""
    began = time.time()
    consumer = bus.consumer(RECORDED, group=None, start="earliest")
    records: list[Record] = []
    last = time.monotonic()
    try:
        while time.monotonic() - last < quiet_seconds:
            new = consumer.poll(0.5)
            old = [record for record in new if record.time <= began]
            records += old
            if old:
                last = time.monotonic()
    finally:
        consumer.close()
    return records


def _record(text: bytes, where: str) -> Record:
    try:
        line = msgspec.json.decode(text, type=Line)
        if line.topic not in ALL_TOPICS:
            raise SettingsError(f"{where}: '{line.topic}' is no topic of Trimtab")
        headers = {name: base64.b64decode(value) for name, value in line.headers.items()}
        return Record(line.topic, line.partition, line.offset, line.time, decode(line.topic, bytes(line.message)), headers)
    except (msgspec.DecodeError, Undecodable, ValueError) as error:
        raise SettingsError(f"{where}: this is no record: {error}") from error

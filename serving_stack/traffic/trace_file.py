"""Recorded demand from a file of one's own: times as text, or the CSV and JSON that the published traces come as."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np

from serving_stack.traffic.recorded import Arrivals, Floats, Rates, Recording
from trimtab.errors import SettingsError

_TIMES = ("timestamp", "arrival_timestamp", "arrival_time", "arrival", "arrived_at", "time", "t")
"""Columns that hold when a request came (Azure, BurstGPT: TIMESTAMP, Timestamp), in small letters, the surest first."""
_STEPS = "t_s"
"""The column of a table of rates (ServeGen): the start of each step in seconds."""


class _Detail(msgspec.Struct):
    record_time: float
    total_chunk_time: float


@lru_cache(8)
def read_trace(path: Path, column: str | None = None) -> Recording:
    """What a file records. Raises SettingsError with the line when it is no trace.

    - `.csv`: a column of times (seconds, or a date and time), as in Azure's and BurstGPT's traces; or, with a first column
      `t_s`, rates per step as in ServeGen's, where `column` says whose
    - `.json`: the `detail_log` of a vLLM sweep
    - anything else: one time per line, in seconds

    Each may be compressed (`.gz`, `.xz`). Times need no order; only their distances matter.
    """
    text = _text(path)
    kind = Path(path.name.removesuffix(".gz").removesuffix(".xz")).suffix.lower()
    if kind == ".csv":
        return _table(path, text, column)
    if column is not None:
        raise SettingsError(f"{path}: only a CSV file has columns, such as '{column}'")
    if kind == ".json":
        return _arrivals(path, _details(path, text))
    return _arrivals(path, (_number(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()))


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        elif path.suffix == ".xz":
            data = lzma.decompress(data)
        return data.decode("utf-8-sig")
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise SettingsError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not text") from error


def _table(path: Path, text: str, column: str | None) -> Recording:
    rows = csv.reader(io.StringIO(text))
    head = [name.strip() for name in next(rows, [])]
    if head and head[0] == _STEPS:
        return _rates(path, rows, head, column)
    known = {name.lower(): name for name in reversed(head)}
    chosen = column or next((known[name] for name in _TIMES if name in known), None)
    if chosen is None or chosen not in head:
        wanted = f"no column '{column}'" if column else f"none of the columns {', '.join(_TIMES)} or {_STEPS}"
        raise SettingsError(f"{path}:1: there is {wanted} among: {', '.join(head)}; --trace-column names another")
    place = head.index(chosen)
    return _arrivals(path, (_time(path, number, _cell(row, place)) for number, row in enumerate(rows, 2) if row))


def _rates(path: Path, rows: Iterator[list[str]], head: list[str], column: str | None) -> Rates:
    columns = head[1:]
    chosen = column or (columns[0] if len(columns) == 1 else None)
    if chosen not in columns:
        raise SettingsError(f"{path}:1: --trace-column must say whose rates: {', '.join(columns)}")
    place = head.index(chosen)
    steps, rates = [], []
    for number, row in enumerate(rows, 2):
        if not _cell(row, place).strip():
            continue  # a shorter recording beside longer ones
        steps.append(_number(path, number, row[0]))
        rates.append(_number(path, number, row[place]))
        if rates[-1] < 0:
            raise SettingsError(f"{path}:{number}: the rate {row[place]} is negative")
    widths = np.diff(steps)
    if not widths.size or widths[0] <= 0 or not np.allclose(widths, widths[0]):
        raise SettingsError(f"{path}: {_STEPS} must grow in equal steps, with a rate of '{chosen}' in at least two of them")
    if not any(rates):
        raise SettingsError(f"{path}: '{chosen}' is zero throughout")
    return Rates(step=float(widths[0]), rates=np.array(rates))


def _details(path: Path, text: str) -> Floats:
    try:
        found = msgspec.json.decode(text, type=dict[str, _Detail])
    except msgspec.DecodeError as error:
        raise SettingsError(f"{path}: is not the detail_log of a vLLM sweep: {error}") from error
    return np.array([one.record_time - one.total_chunk_time for one in found.values()])


def _arrivals(path: Path, times: Iterator[float] | Floats) -> Arrivals:
    ordered = np.sort(np.fromiter(times, dtype=np.float64))
    gaps = np.diff(ordered)
    if not gaps.size or not np.isfinite(gaps).all() or gaps.sum() <= 0:
        raise SettingsError(f"{path}: has no two arrivals at different times")
    return Arrivals(gaps)


def _cell(row: list[str], place: int) -> str:
    return row[place] if place < len(row) else ""


def _number(path: Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingsError(f"{path}:{line}: {text.strip()[:40]!r} is no number of seconds")
    return value


def _time(path: Path, line: int, text: str) -> float:
    """Seconds, or a date and time; one without a zone is taken as UTC."""
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return _number(path, line, text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()

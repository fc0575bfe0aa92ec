"""The Flink job: telemetry and control topics in, scores and findings out.

trimtab.telemetry ---+                                     +--> trimtab.scores
trimtab.fleets       +--> key by fleet --> FleetProcess ---+--> trimtab.findings
trimtab.models ------+      (keyed state, timers)          +--> <topic>.rejected
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from pyflink.common import Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.state import ListState, ListStateDescriptor, ValueState, ValueStateDescriptor
from pyflink.table import StreamTableEnvironment

from detectors import kafka_io
from detectors.journal import Fleet, Incoming, Outgoing, fleet_in, read
from detectors.settings import DetectSettings
from trimtab import tracing
from trimtab.bus import COMPACTED
from trimtab.messages import Forgotten

log = logging.getLogger(__name__)

TIMER_MILLISECONDS = 250
"""How often time passes for a fleet: the longest a complete tick waits when no snapshot comes."""

_BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
_OUT = Types.ROW_NAMED(["topic", "key", "value", "traceparent", "reason"], [Types.STRING(), _BYTES, _BYTES, _BYTES, _BYTES])


def build(env: StreamExecutionEnvironment, bootstrap: str, settings: DetectSettings, heartbeat: Path, spans: Path | None) -> None:
    """Puts the job into `env`; `env.execute_async(...)` then runs it."""
    tables = StreamTableEnvironment.create(env)
    produced = (
        kafka_io.read(tables, bootstrap)
        .key_by(fleet_of, key_type=Types.STRING())
        .process(FleetProcess(settings.model_dump_json(), str(heartbeat), str(spans) if spans else None), output_type=_OUT)
        .name("detect")
        .uid("detect")
    )
    kafka_io.write(tables, bootstrap, produced)


class _Named(msgspec.Struct):
    fleet: str


_named = msgspec.json.Decoder(_Named)


def fleet_of(row: Row) -> str:
    """The fleet that a row belongs to; '' for heartbeats and for what has none and will be rejected."""
    if row[2] is None and row[0] in COMPACTED:
        return fleet_in(row[1])
    try:
        return _named.decode(row[2] or b"").fleet
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


class FleetProcess(KeyedProcessFunction):  # type: ignore[misc]
    """Runs one `Fleet` per key in the Python worker."""

    def __init__(self, settings: str, heartbeat: str, spans: str | None) -> None:
        self._settings_json, self._heartbeat, self._spans = settings, Path(heartbeat), spans

    def open(self, runtime_context: RuntimeContext) -> None:
        """Called once in the worker, before the first row."""
        logging.getLogger().setLevel(logging.INFO)
        self._settings = DetectSettings.model_validate_json(self._settings_json)
        self._store = _KeyedStore(runtime_context)
        self._fleets: dict[str, Fleet] = {}
        tracing.setup("detectors", Path(self._spans) if self._spans else None)

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:
        """One record, or a heartbeat."""
        record = Incoming(value[0], value[1], value[2], value[3])
        if record.topic == "":
            _write_heartbeat(self._heartbeat)
            return
        message = read(record)
        if message is None:
            return
        if isinstance(message, Outgoing):  # before anything is made for a fleet that may not exist
            yield Row(*message)
            return
        name = ctx.get_current_key()
        if isinstance(message, Forgotten):
            self._fleets.pop(name, None)
            self._store.clear()
            return
        if name not in self._fleets:
            # On a grid, so that a timer that was restored and this one are the same.
            ctx.timer_service().register_processing_time_timer(_next_on_grid(ctx.timer_service().current_processing_time()))
        outgoing = self._fleet(name).on_record(record, message, time.time())
        yield from _rows(outgoing)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Row]:
        """Time has passed for one fleet."""
        if ctx.get_current_key() not in self._fleets and self._store.is_empty():
            return  # it was forgotten: its time stands still
        service = ctx.timer_service()
        service.register_processing_time_timer(_next_on_grid(max(timestamp, service.current_processing_time())))
        yield from _rows(self._fleet(ctx.get_current_key()).on_time(time.time()))

    def _fleet(self, name: str) -> Fleet:
        if name not in self._fleets:
            self._fleets[name] = Fleet(name, self._settings, self._store)
        return self._fleets[name]


class _KeyedStore:
    """`Store` on Flink's keyed state: each call is about the key being processed."""

    def __init__(self, context: RuntimeContext) -> None:
        self._dump: ValueState = context.get_state(ValueStateDescriptor("dump", _BYTES))
        self._model: ValueState = context.get_state(ValueStateDescriptor("model", _BYTES))
        self._journal: ListState = context.get_list_state(ListStateDescriptor("journal", _BYTES))

    def dumped(self) -> bytes | None:
        found = self._dump.value()
        return None if found is None else bytes(found)

    def journal(self) -> list[bytes]:
        return [bytes(entry) for entry in self._journal.get() or ()]

    def model(self) -> bytes | None:
        found = self._model.value()
        return None if found is None else bytes(found)

    def is_empty(self) -> bool:
        return self._dump.value() is None and not self.journal()

    def clear(self) -> None:
        for state in (self._dump, self._model, self._journal):
            state.clear()

    def append(self, entry: bytes) -> None:
        self._journal.add(entry)

    def replace(self, dump: bytes) -> None:
        self._dump.update(dump)
        self._journal.clear()

    def keep_model(self, message: bytes) -> None:
        self._model.update(message)


def _rows(outgoing: list[Outgoing]) -> Iterator[Row]:
    for item in outgoing:
        yield Row(*item)


def _next_on_grid(milliseconds: int) -> int:
    return (milliseconds // TIMER_MILLISECONDS + 1) * TIMER_MILLISECONDS


def _write_heartbeat(file: Path) -> None:
    scratch = file.with_suffix(".new")
    scratch.write_text(f"{time.time()} {os.getpid()}\n")
    scratch.replace(file)

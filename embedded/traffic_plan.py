"""The traffic of a whole scenario, planned before it starts: the warm-up, the segments and the surges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from embedded.recording import Request
from embedded.scenario import Scenario
from serving_stack.traffic.plan import Plan, Segment, Surge
from trimtab.errors import Missing

WARMUP_FACTORS = (1.0, 1.5, 2.0, 1.5, 1.0, 0.5, 0.75, 1.0, 1.0)
"""The warm-up's rate in equal steps, as a factor on the initial rate: slowly up, down and back.

The learned detectors so see how latency and queues go with the load, and do not take each change of load for an anomaly.
"""


def plan(scenario: Scenario, seed: int) -> Plan:
    """The plan of the traffic generator. Its time zero is the start of the warm-up, `scenario.warmup` before the scenario's."""
    first, lead = scenario.traffic[0], scenario.warmup
    step = lead / len(WARMUP_FACTORS)
    warmup = [
        Segment(at=step * i, rate=first.rate * factor, trace=first.trace, arrivals=first.arrivals)
        for i, factor in enumerate(WARMUP_FACTORS)
    ]
    played = [Segment(at=lead + s.at, rate=s.rate, trace=s.trace, arrivals=s.arrivals) for s in scenario.traffic]
    surges = [
        Surge(at=lead + event.at, factor=event.surge.factor, lasts=event.surge.for_)
        for event in scenario.events
        if event.surge is not None
    ]
    return Plan(seed=seed, duration=lead + scenario.duration, segments=(*warmup, *played), surges=tuple(surges))


def write(path: Path, scenario: Scenario, seed: int) -> Path:
    """Writes the plan as JSON for the traffic generator; returns the path."""
    path.write_text(plan(scenario, seed).model_dump_json(by_alias=True, exclude_none=True, indent=1), encoding="utf-8")
    return path


class _Logged(msgspec.Struct):
    time: float
    latency: float
    outcome: Literal["ok", "wrong", "error"]
    version: str | None = None
    assigned: str | None = None
    attempts: int = 1


def read_requests(log: Path) -> list[Request]:
    """The client's requests from the generator's log, JSON lines; a last line cut short is left out. Raises `Missing`."""
    try:
        return list(_requests(log.read_bytes()))
    except OSError as error:
        raise Missing(f"the log of the client's requests cannot be read: {error}") from error


def _requests(data: bytes) -> Iterator[Request]:
    decoder = msgspec.json.Decoder(_Logged)
    for line in data.splitlines():
        try:
            one = decoder.decode(line)
        except msgspec.DecodeError:
            continue
        yield Request(
            time=one.time,
            latency=one.latency,
            outcome=one.outcome,
            version=_number(one.version),
            assigned=_number(one.assigned),
            attempts=one.attempts,
        )


def _number(version: str | None) -> int | None:
    return int(version) if version is not None and version.isdigit() else None

"""What traffic to send: segments of a rate, surges on top, and a seed that makes it the same every time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

import pydantic

from serving_stack.traffic.recorded import Arrivals, Recording, Trace, is_curve, shipped
from serving_stack.traffic.trace_file import read_trace
from trimtab import yamlfile
from trimtab.errors import SettingsError

Shape = Literal["poisson", "constant", "bursty", "diurnal"]

DAY = 600.0
"""A day of a daily rhythm in ten minutes, unless a plan says otherwise."""
BURSTY = 3.0


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class Segment(_Part):
    """From `at` (seconds after time zero) until the next segment: `rate` requests per second on average.

    Arrivals have a shape: `poisson` (independent), `constant` (evenly spaced), `bursty` (gaps of a gamma distribution) or
    `diurnal` (a day with seven times the traffic at noon that it has at midnight). Or they are those of a recorded `trace`,
    or `trace_file`, squeezed or stretched so that the whole of it has this rate: its bursts and lulls stay.

    In place of `rate`, a recording can be played as it was, `speed` times as fast (1: in its own time), from its first request.
    """

    at: float = pydantic.Field(0.0, ge=0)
    rate: float | None = pydantic.Field(None, ge=0, le=100_000)
    speed: float | None = pydantic.Field(None, gt=0, le=1_000_000)
    arrivals: Shape | None = None
    trace: Trace | None = None
    trace_file: Path | None = None
    trace_column: str | None = None
    """Which column of a CSV `trace_file`, where that is not clear."""
    day: float | None = pydantic.Field(None, gt=0)
    """Seconds that a day of `diurnal`, or of a recorded curve of rates, is played in. Default: 600, or by `speed`."""
    cv: float | None = pydantic.Field(None, gt=0, le=20)
    """Deviation of gaps over their mean, 1 is Poisson: for `bursty` (default 3), `diurnal` and curves of rates (default 1)."""

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(map(bool, (self.arrivals, self.trace, self.trace_file))) > 1:
            raise ValueError("give either arrivals or trace or trace_file, not several")
        if (self.rate is None) == (self.speed is None):
            raise ValueError("give either rate (requests per second) or, with a trace, speed")
        if self.trace_column and not self.trace_file:
            raise ValueError("trace_column goes with trace_file")
        if self.speed is not None and not (self.trace or self.trace_file):
            raise ValueError("speed goes with trace or trace_file")
        # A file is not opened to check a plan: one of arrivals has no use for day and cv.
        curve = self.arrivals == "diurnal" or self.trace_file is not None or (self.trace is not None and is_curve(self.trace))
        if self.day is not None and (self.speed is not None or not curve):
            raise ValueError("day goes with diurnal arrivals or a curve of rates, and not with speed")
        if self.cv is not None and not (curve or self.arrivals == "bursty"):
            raise ValueError("cv goes with bursty or diurnal arrivals or a curve of rates")
        return self

    def recording(self) -> Recording | None:
        """The trace that this segment plays; None for a shape. Raises SettingsError when its file is none."""
        if self.trace_file:
            found = read_trace(self.trace_file, self.trace_column)
            if isinstance(found, Arrivals) and (self.day or self.cv):
                raise SettingsError(f"{self.trace_file} has arrivals one by one: day and cv go with a curve of rates")
            return found
        return shipped(self.trace) if self.trace else None


class Surge(_Part):
    """The rate is multiplied by `factor` from `at` for `lasts` seconds (`for` in a file). Surges that overlap multiply."""

    at: float = pydantic.Field(ge=0)
    factor: float = pydantic.Field(ge=0, le=1000)
    lasts: float = pydantic.Field(gt=0, alias="for")


class Plan(_Part):
    """All traffic of a run. `warmup` seconds before time zero have the first segment's rate and do not count in the summary.

    Without `duration` it goes on until it is stopped.
    """

    seed: int = pydantic.Field(0, ge=0)
    duration: float | None = pydantic.Field(None, gt=0)
    warmup: float = pydantic.Field(0.0, ge=0)
    segments: tuple[Segment, ...] = pydantic.Field(min_length=1)
    surges: tuple[Surge, ...] = ()

    @pydantic.field_validator("segments")
    @classmethod
    def _in_order(cls, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        starts = [segment.at for segment in segments]
        if starts != sorted(set(starts)):
            raise ValueError("segments must be in the order of their 'at', each later than the one before")
        return segments

    @property
    def end(self) -> float:
        """Seconds after time zero at which the traffic stops; infinity without a duration."""
        return math.inf if self.duration is None else self.duration


def one_segment(*, seed: int = 0, duration: float | None = None, **segment: object) -> Plan:
    """A plan of one segment with these fields; what is None is left out. With `speed` and no duration it ends with its recording.

    Raises SettingsError in words.
    """
    try:
        only = Segment.model_validate({name: value for name, value in segment.items() if value is not None})
        if duration is None and only.speed is not None and (recording := only.recording()):
            # Half a gap longer, so that the last request is among them and the first one again is not.
            last = 0.5 / recording.mean_rate if isinstance(recording, Arrivals) else 0.0
            duration = (recording.seconds + last) / only.speed
        return Plan(seed=seed, duration=duration, segments=(only,))
    except pydantic.ValidationError as error:
        words = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in error.errors()]
        raise SettingsError("; ".join(word.replace("Value error, ", "") for word in words)) from error


def read_plan(path: Path) -> Plan:
    """Reads a plan from a YAML or JSON file; a `trace_file` in it is found beside it. Raises SettingsError with file and line."""
    plan = yamlfile.validate(yamlfile.read(path), Plan)
    beside = [
        segment.model_copy(update={"trace_file": path.parent / segment.trace_file}) if segment.trace_file else segment
        for segment in plan.segments
    ]
    return plan.model_copy(update={"segments": tuple(beside)})

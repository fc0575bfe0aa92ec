"""What traffic to send: segments of a rate, surges on top, and a seed that makes it the same every time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

import pydantic

from trimtab import yamlfile

Arrivals = Literal["poisson", "constant"]
Trace = Literal["azure-conv"]


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class Segment(_Part):
    """From `at` (seconds after time zero) until the next segment: `rate` requests per second on average.

    Arrivals are `poisson` (independent), `constant` (evenly spaced) or those of a recorded `trace`, squeezed or stretched so
    that the whole trace has this rate: its bursts and lulls stay.
    """

    at: float = pydantic.Field(0.0, ge=0)
    rate: float = pydantic.Field(ge=0, le=100_000)
    arrivals: Arrivals | None = None
    trace: Trace | None = None

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.arrivals and self.trace:
            raise ValueError("give either arrivals or trace, not both")
        return self


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


def read_plan(path: Path) -> Plan:
    """Reads a plan from a YAML or JSON file; raises SettingsError with file and line."""
    return yamlfile.validate(yamlfile.read(path), Plan)

"""Quantities as people write them in scenarios: `240s`, `4m`, `250ms`, `20/s`, `0.5%`. A bare number is refused: say the unit."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PER_SECOND = {"s": 1.0, "m": 1 / 60, "h": 1 / 3600}


def _duration(value: object) -> float:
    match = re.fullmatch(_NUMBER + r"\s?(ms|s|m|h)", value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a duration; write a number and a unit, such as 240s, 4m or 250ms")
    return float(match[1]) * _SECONDS[match[2]]


def _rate(value: object) -> float:
    match = re.fullmatch(_NUMBER + r"\s?/\s?(s|m|h)", value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a rate; write a number per time, such as 20/s or 600/m")
    return float(match[1]) * _PER_SECOND[match[2]]


def _share(value: object) -> float:
    match = re.fullmatch(_NUMBER + r"\s?%", value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a percentage; write a number and %, such as 0.5%")
    return float(match[1]) / 100


Duration = Annotated[float, BeforeValidator(_duration), Field(ge=0)]
"""Seconds, written with a unit."""
PositiveDuration = Annotated[float, BeforeValidator(_duration), Field(gt=0)]
"""Seconds above zero, written with a unit."""
Rate = Annotated[float, BeforeValidator(_rate), Field(gt=0, le=10_000)]
"""Requests per second, written such as 20/s."""
Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
"""A ratio 0..1, written as a percentage."""

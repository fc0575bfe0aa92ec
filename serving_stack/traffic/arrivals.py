"""When requests are sent. Pure and seeded: the same plan gives the same times, to the last bit.

Each segment has a process of mean rate one in *operational time*, and the integral of the planned rate warps it to seconds
(the inverse of the cumulative rate, as for any non-homogeneous process). So a surge makes the same arrivals denser, and a
trace keeps the shape of its bursts at any rate. A daily rhythm is part of the planned rate: in a surge the day passes no faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from serving_stack.traffic.plan import BURSTY, DAY, Plan, Segment
from serving_stack.traffic.recorded import Arrivals, Rates
from serving_stack.traffic.recorded import Floats as Times

BLOCK = 4096
_STEPS_A_DAY = 144
# The middle of each ten minutes of a day that is quietest at midnight and busiest at noon, seven times apart.
_DIURNAL = 1 - 0.75 * np.cos(2 * np.pi * (np.arange(_STEPS_A_DAY) + 0.5) / _STEPS_A_DAY)


def arrival_times(plan: Plan) -> Times:
    """All times of a plan, seconds from time zero (warm-up below zero), sorted. Raises ValueError without a duration."""
    if plan.duration is None:
        raise ValueError("a plan without a duration has no last arrival: use arrival_blocks")
    return np.concatenate([np.empty(0), *arrival_blocks(plan)])


def arrival_blocks(plan: Plan) -> Iterator[Times]:
    """The same times lazily, in blocks of at most BLOCK, some empty: memory does not grow with the length of the run."""
    for index, segment in enumerate(plan.segments):
        start = -plan.warmup if index == 0 and segment.at == 0 else segment.at
        end = min(plan.segments[index + 1].at if index + 1 < len(plan.segments) else math.inf, plan.end)
        if end > start:
            yield from _segment(plan, index, segment, start, end)


def _segment(plan: Plan, index: int, segment: Segment, start: float, end: float) -> Iterator[Times]:
    recording = segment.recording()
    rate = segment.rate if segment.rate is not None else recording.mean_rate * (segment.speed or 1.0) if recording else 0.0
    if rate == 0:
        return
    rng = np.random.default_rng([plan.seed, index])
    curve = _curve(segment, recording)
    units: Iterator[Times] | None = None
    left = np.empty(0)
    base = 0.0
    for starts, factors, until in _pieces(plan, segment, curve, start, end):
        rates = rate * factors
        total = base + np.concatenate([[0.0], np.cumsum(np.diff(starts) * rates[:-1])])
        base = float(total[-1] + (rates[-1] * (until - starts[-1]) if rates[-1] > 0 else 0.0))
        if units is None:
            units = _unit_process(segment, recording, rng, base)
        while True:
            block = left if left.size else next(units)
            inside = block[: np.searchsorted(block, base, side="left")]
            left = block[inside.size :]
            # side="right": at a pause (rate 0) the cumulative rate stands still, and what falls there comes after it
            piece = np.searchsorted(total, inside, side="right") - 1
            times = starts[piece] + (inside - total[piece]) / rates[piece]
            yield times[times < until]
            if left.size:
                break


def _curve(segment: Segment, recording: Arrivals | Rates | None) -> tuple[float, Times] | None:
    """The rhythm of a segment: seconds per step, and factors of mean one that come again after the last."""
    if isinstance(recording, Rates):
        a_day = segment.day or (86_400 / segment.speed if segment.speed else DAY)
        return recording.step * a_day / 86_400, recording.rates / recording.mean_rate
    if segment.arrivals == "diurnal":
        return (segment.day or DAY) / _STEPS_A_DAY, _DIURNAL
    return None


def _pieces(
    plan: Plan, segment: Segment, curve: tuple[float, Times] | None, start: float, end: float
) -> Iterator[tuple[Times, Times, float]]:
    """Where the rate changes within [start, end), the factor on it from there on, and where these pieces end.

    With a rhythm, which has no last change, a day's worth of steps at a time.
    """
    edges = [edge for surge in plan.surges for edge in (surge.at, surge.at + surge.lasts)]
    step, rhythm = curve or (math.inf, np.ones(1))
    first = math.floor((start - segment.at) / step) if curve else 0
    while start < end:
        until = min(end, segment.at + step * (first + _STEPS_A_DAY)) if curve else end
        changes = (segment.at + step * (first + i) for i in range(_STEPS_A_DAY)) if curve else ()
        starts = np.array(sorted({start, *(edge for edge in (*edges, *changes) if start < edge < until)}))
        surges = np.array(
            [math.prod(s.factor for s in plan.surges if s.at <= at < s.at + s.lasts) for at in starts], dtype=np.float64
        )
        # The middle of a piece, so that rounding does not put its start into the step before.
        middles = (starts + np.append(starts[1:], until)) / 2
        factors = surges * rhythm[np.floor((middles - segment.at) / step).astype(np.int64) % rhythm.size] if curve else surges
        yield starts, factors, until
        start, first = until, first + _STEPS_A_DAY


def _unit_process(segment: Segment, recording: Arrivals | Rates | None, rng: np.random.Generator, last: float) -> Iterator[Times]:
    """Endless arrivals of mean rate one, in increasing blocks. Up to `last`, a trace has that mean in the part it plays."""
    at = 0.0
    if isinstance(recording, Arrivals):
        gaps = recording.gaps / recording.gaps.mean()
        if segment.speed is not None:
            at, gaps = -1.0, np.append([1.0], gaps)  # the first request at the very start; played again after a gap
        else:
            gaps = np.roll(gaps, -int(rng.integers(gaps.size)))
            if 100 <= last < gaps.size and (part := gaps[: math.ceil(last)]).any():  # fewer gaps have no mean worth the name
                gaps = part / part.mean()
        place = 0
        while True:
            block = at + np.cumsum(np.take(gaps, np.arange(place, place + BLOCK), mode="wrap"))
            yield block
            at, place = float(block[-1]), (place + BLOCK) % gaps.size
    cv = segment.cv or (BURSTY if segment.arrivals == "bursty" else 1.0)
    while True:
        if segment.arrivals == "constant":
            gaps = np.ones(BLOCK)
        else:
            gaps = rng.exponential(1.0, BLOCK) if cv == 1 else rng.gamma(cv**-2, cv**2, BLOCK)
        block = at + np.cumsum(gaps)
        yield block
        at = float(block[-1])

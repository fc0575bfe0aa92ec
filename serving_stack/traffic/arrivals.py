"""When requests are sent. Pure and seeded: the same plan gives the same times, to the last bit.

Each segment has a process of mean rate one in *operational time*, and the integral of the planned rate warps it to seconds
(the inverse of the cumulative rate, as for any non-homogeneous process). So a surge makes the same arrivals denser, and a
trace keeps the shape of its bursts at any rate.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from serving_stack.traffic.plan import Plan, Segment, Trace

Times = NDArray[np.float64]

BLOCK = 4096
_FILES: dict[Trace, str] = {"azure-conv": "azure_conv.txt.gz"}


def arrival_times(plan: Plan) -> Times:
    """All times of a plan, seconds from time zero (warm-up below zero), sorted. Raises ValueError without a duration."""
    if plan.duration is None:
        raise ValueError("a plan without a duration has no last arrival: use arrival_blocks")
    return np.concatenate([np.empty(0), *arrival_blocks(plan)])


def arrival_blocks(plan: Plan) -> Iterator[Times]:
    """The same times lazily, in blocks of at most BLOCK: memory does not grow with the length of the run."""
    for index, segment in enumerate(plan.segments):
        start = -plan.warmup if index == 0 and segment.at == 0 else segment.at
        end = min(plan.segments[index + 1].at if index + 1 < len(plan.segments) else math.inf, plan.end)
        if end > start:
            yield from _segment(plan, index, segment, start, end)


def _segment(plan: Plan, index: int, segment: Segment, start: float, end: float) -> Iterator[Times]:
    starts, rates = _pieces(plan, segment, start, end)
    total = np.concatenate([[0.0], np.cumsum(np.diff(starts) * rates[:-1])])
    last = total[-1] + (rates[-1] * (end - starts[-1]) if rates[-1] > 0 else 0.0)
    rng = np.random.default_rng([plan.seed, index])
    for block in _unit_process(segment, rng, last):
        inside = block[block < last]
        # side="right": at a pause (rate 0) the cumulative rate stands still, and what falls there comes after it
        piece = np.searchsorted(total, inside, side="right") - 1
        times = starts[piece] + (inside - total[piece]) / rates[piece]
        times = times[times < end]
        if times.size:
            yield times
        if inside.size < block.size:
            return


def _pieces(plan: Plan, segment: Segment, start: float, end: float) -> tuple[Times, Times]:
    """Where the rate changes within [start, end), and the rate from there on."""
    edges = {start, *(edge for surge in plan.surges for edge in (surge.at, surge.at + surge.lasts) if start < edge < end)}
    starts = sorted(edges)
    factors = [math.prod(s.factor for s in plan.surges if s.at <= at < s.at + s.lasts) for at in starts]
    return np.array(starts), segment.rate * np.array(factors, dtype=np.float64)


def _unit_process(segment: Segment, rng: np.random.Generator, last: float) -> Iterator[Times]:
    """Endless arrivals of mean rate one, in increasing blocks. Up to `last`, a trace has that mean in the part it plays."""
    at = 0.0
    if segment.trace:
        gaps = _trace_gaps(segment.trace)
        gaps = np.roll(gaps, -int(rng.integers(gaps.size)))
        if 100 <= last < gaps.size:  # fewer gaps have no mean worth the name
            gaps = gaps[: math.ceil(last)] / gaps[: math.ceil(last)].mean()
        place = 0
        while True:
            block = at + np.cumsum(np.take(gaps, np.arange(place, place + BLOCK), mode="wrap"))
            yield block
            at, place = float(block[-1]), (place + BLOCK) % gaps.size
    while True:
        gaps = np.ones(BLOCK) if segment.arrivals == "constant" else rng.exponential(1.0, BLOCK)
        block = at + np.cumsum(gaps)
        yield block
        at = float(block[-1])


@cache
def _trace_gaps(trace: Trace) -> Times:
    """The gaps between the recorded arrivals in units of their mean; the trace starts again after its end."""
    text = gzip.decompress((files("serving_stack.traces") / _FILES[trace]).read_bytes())
    gaps: Times = np.diff(np.array(text.split(), dtype=np.float64))
    return np.divide(gaps, gaps.mean())

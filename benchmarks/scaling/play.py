"""Situations, one run of a controller in a situation, and what is measured of it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from benchmarks.scaling.controllers import Controller
from benchmarks.scaling.fleet import DECLARED_CAPACITY, STEP_SECONDS, Answer, Fault, Fleet
from serving_stack.traffic.arrivals import arrival_times
from serving_stack.traffic.plan import Plan, Segment, Surge

RATE = 40.0
FIRST_REPLICAS = 2
LEAD_SECONDS = 120.0
"""Traffic before time zero, so that every controller's windows are full when measuring begins."""
SLO_SECONDS = 0.25
SLO_WINDOW_SECONDS = 5.0
AFTER_FAULT_SECONDS = 60.0
_LAST_ANSWERS_SECONDS = 10.0


@dataclass(frozen=True)
class Situation:
    """What happens in a run of `duration` seconds of recorded traffic at `RATE` on average."""

    key: str
    words: str
    duration: float
    surge: Surge | None = None
    fault: Fault | None = None


def situations(duration: float, at: float) -> list[Situation]:
    """All situations, with their event at second `at`. Only the slower of the slow replicas answers later than the SLO allows."""
    return [
        Situation("calm", "recorded traffic", duration),
        Situation("surge", "arrivals x4 for 40 s", duration, surge=Surge(at=at, factor=4, lasts=40)),
        Situation("long_surge", "arrivals x3 for 180 s", duration, surge=Surge(at=at, factor=3, lasts=180)),
        Situation("slow", "a replica 300 ms slower, 120 s", duration, fault=Fault(at, 120, slower_by=0.3)),
        Situation("slowish", "a replica 200 ms slower, 120 s", duration, fault=Fault(at, 120, slower_by=0.2)),
        Situation(
            "slow_fleet", "all replicas 50 ms slower, 120 s", duration, fault=Fault(at, 120, slower_by=0.05, everywhere=True)
        ),
        Situation("failing", "a replica fails half, 120 s", duration, fault=Fault(at, 120, fails=0.5)),
    ]


class Run(NamedTuple):
    """What came of a run: wanted and ready replicas after each step from time zero on, and all answers."""

    wanted: list[int]
    ready: list[int]
    answers: list[Answer]
    unanswered: list[float]


def play(situation: Situation, controller: Controller, seed: int, start_seconds: float) -> Run:
    """Plays one situation; `start_seconds`: how long a new replica takes to serve. The same arguments give the same run."""
    surges = (situation.surge,) if situation.surge else ()
    segment = Segment(at=0, rate=RATE, trace="azure-conv")
    plan = Plan(seed=seed, duration=situation.duration, warmup=LEAD_SECONDS, segments=(segment,), surges=surges)
    times: list[float] = arrival_times(plan).tolist()
    fleet = Fleet(random.Random(f"{seed}:service"), -LEAD_SECONDS, FIRST_REPLICAS, start_seconds, situation.fault)
    wanted, ready, place, count = [], [], 0, FIRST_REPLICAS
    while fleet.now < situation.duration:
        first = place
        while place < len(times) and times[place] < fleet.now + STEP_SECONDS:
            place += 1
        signals = fleet.step(times[first:place])
        asked = controller.look(signals)
        if asked is not None:
            count = asked
            fleet.want(count)
        if fleet.now > 0:
            wanted.append(count)
            ready.append(signals.ready)
    while fleet.now < situation.duration + _LAST_ANSWERS_SECONDS:
        fleet.step([])
    return Run(wanted, ready, fleet.answers, fleet.waiting)


def without_fault(situation: Situation) -> Situation:
    """The same, but nothing breaks: what a controller would have done anyway."""
    return replace(situation, fault=None)


def violating_seconds(run: Run, duration: float) -> float:
    """Seconds in windows of five, by the time of sending, whose 99th percentile is over the SLO; a failure counts as slow."""
    sent = [0] * math.ceil(duration / SLO_WINDOW_SECONDS)
    slow = [0] * len(sent)
    judged = [(a.sent, a.latency is None or a.latency > SLO_SECONDS) for a in run.answers]
    for at, is_slow in [*judged, *((at, True) for at in run.unanswered)]:
        if 0 <= at < duration:
            sent[int(at / SLO_WINDOW_SECONDS)] += 1
            slow[int(at / SLO_WINDOW_SECONDS)] += is_slow
    return SLO_WINDOW_SECONDS * sum(bad > 0.01 * total for bad, total in zip(slow, sent, strict=True))


def slow_ratio(run: Run) -> float:
    """The share of all requests that were over the SLO, failed or got no answer."""
    latencies = [a.latency for a in run.answers if a.sent >= 0]
    slow = sum(latency is None or latency > SLO_SECONDS for latency in latencies) + len(run.unanswered)
    return slow / (len(latencies) + len(run.unanswered))


def replica_seconds(run: Run) -> float:
    """What is paid for: replicas that were wanted, starting ones included, times seconds."""
    return sum(run.wanted) * STEP_SECONDS


def reaction_seconds(run: Run, surge: Surge) -> float | None:
    """From the surge's start until more replicas are wanted than just before it; None: not while it lasts."""
    first, last = round(surge.at / STEP_SECONDS), round((surge.at + surge.lasts) / STEP_SECONDS)
    return _first([count > run.wanted[first - 1] for count in run.wanted[first:last]])


def enough_seconds(run: Run, surge: Surge) -> float | None:
    """From the surge's start until ready replicas could serve its mean rate within the declared capacity; None: not in it."""
    first, last = round(surge.at / STEP_SECONDS), round((surge.at + surge.lasts) / STEP_SECONDS)
    return _first([count * DECLARED_CAPACITY >= RATE * surge.factor for count in run.ready[first:last]])


def added_for(run: Run, calm: Run, fault: Fault) -> int:
    """The most replicas wanted with a fault over those wanted in the same traffic without it, until a minute after it."""
    first, last = round(fault.at / STEP_SECONDS), round((fault.at + fault.lasts + AFTER_FAULT_SECONDS) / STEP_SECONDS)
    return max(a - b for a, b in zip(run.wanted[first:last], calm.wanted[first:last], strict=True))


def _first(steps: Sequence[bool]) -> float | None:
    return next(((i + 1) * STEP_SECONDS for i, yes in enumerate(steps) if yes), None)

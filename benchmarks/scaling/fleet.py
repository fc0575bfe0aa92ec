"""A queueing model of a fleet, in virtual time. What it is, and what it leaves out:

- One queue for all replicas, first come first served, without a limit: a gateway that knows which replica is idle.
- A replica works on one request at a time and takes `SERVICE_SECONDS`, 20 % more or less (uniform): 40 requests/s at the most, of
  which 30 are the declared capacity, since above them waits outgrow the SLO.
- A new replica takes requests after `start_seconds`. One that is removed ends its request and takes no other; those that start
  are removed first, then the newest.
- A try that fails is tried again, as the gateway does: after a random pause up to 25 ms, at most 40 times. Hedging is left out.
- A `Fault` is in the oldest replica, or in all of them, and lasts for its time.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from typing import NamedTuple

SERVICE_SECONDS = 0.025
SPREAD = 0.2
DECLARED_CAPACITY = 30.0
"""Requests per second that one replica is said to serve within the SLO."""
STEP_SECONDS = 0.5
FAILED_TRY_SECONDS = 0.002
MOST_TRIES = 41
_PAUSE_SECONDS = 0.025


@dataclass(frozen=True)
class Fault:
    """What goes wrong from `at` for `lasts` seconds in the oldest replica, or in each one: it takes longer, or tries fail.

    `slower_by` is in seconds per request, `fails` the share of tries.
    """

    at: float
    lasts: float
    slower_by: float = 0.0
    fails: float = 0.0
    everywhere: bool = False


class Signals(NamedTuple):
    """What can be measured of one step of `STEP_SECONDS` that ends at `time` (seconds). Controllers see this and nothing else."""

    time: float
    arrivals: int
    """Requests that clients sent to the gateway."""
    tries: int
    """Tries that replicas began, the gateway's retries included."""
    busy: float
    """Replica-seconds of work in replicas that take requests."""
    serving: float
    """Replica-seconds of replicas that take requests."""
    in_flight: float
    """Request-seconds between gateway and answer: waiting or worked on. Divided by the step: the mean number of requests."""
    ready: int
    replicas: int
    """Ready and starting ones."""


class Answer(NamedTuple):
    """One request: when it was sent, and how long it took; None: it failed after all tries."""

    sent: float
    latency: float | None


@dataclass
class _Replica:
    number: int
    ready_at: float
    in_traffic: bool = False
    gone: bool = False


@dataclass
class Fleet:
    """One fleet. `step` plays the next half second; `want` changes the number of replicas."""

    rng: random.Random
    start: float
    replicas: int
    start_seconds: float
    fault: Fault | None = None
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = self.start
        self._alive: list[_Replica] = []
        self._free: list[tuple[float, int, _Replica]] = []
        self._queue: list[tuple[float, float, int]] = []  # due, sent, tries so far
        self._working: list[float] = []  # when work that has begun ends
        self._inside: list[float] = []  # when requests that were begun for the last time get their answer
        self._present = 0
        self._count = 0
        self._grow(self.replicas, self.now)

    def want(self, replicas: int) -> None:
        """From now on there shall be this many."""
        starting_first = sorted(self._alive, key=lambda each: (not each.in_traffic, each.number), reverse=True)
        for replica in starting_first[: max(0, len(self._alive) - replicas)]:
            replica.gone = True
            self._alive.remove(replica)
        self._grow(replicas - len(self._alive), self.now + self.start_seconds)

    @property
    def waiting(self) -> list[float]:
        """When the requests that nobody has answered yet were sent."""
        return [sent for _due, sent, _tries in self._queue]

    def step(self, arrivals: list[float]) -> Signals:
        """Plays the next step; `arrivals` are the times within it at which clients send."""
        begin, end = self.now, self.now + STEP_SECONDS
        in_flight = self._present * STEP_SECONDS + sum(end - at for at in arrivals)
        busy = len(self._working) * STEP_SECONDS
        for at in arrivals:
            heapq.heappush(self._queue, (at, at, 0))
        for replica in self._alive:
            if not replica.in_traffic and replica.ready_at < end:
                replica.in_traffic = True
                heapq.heappush(self._free, (max(replica.ready_at, begin), replica.number, replica))
        tries = 0
        while self._queue and self._free:
            free, _number, replica = self._free[0]
            due, sent, tried = self._queue[0]
            at = max(free, due, begin)
            if at >= end:
                break
            heapq.heappop(self._free)
            if replica.gone:
                continue
            heapq.heappop(self._queue)
            tries += 1
            busy += end - at
            over = at + self._work(replica, at, sent, tried)
            heapq.heappush(self._working, over)
            heapq.heappush(self._free, (over, replica.number, replica))
        while self._working and self._working[0] <= end:
            busy -= end - heapq.heappop(self._working)
        self._present += len(arrivals)
        while self._inside and self._inside[0] <= end:
            in_flight -= end - heapq.heappop(self._inside)
            self._present -= 1
        self.now = end
        serving = sum(end - max(each.ready_at, begin) for each in self._alive if each.in_traffic)
        ready = sum(each.in_traffic for each in self._alive)
        return Signals(end, len(arrivals), tries, busy, serving, in_flight, ready, len(self._alive))

    def _work(self, replica: _Replica, at: float, sent: float, tried: int) -> float:
        """Seconds that this try keeps its replica."""
        seconds = SERVICE_SECONDS * self.rng.uniform(1 - SPREAD, 1 + SPREAD)
        fault = self.fault
        if fault and (fault.everywhere or replica.number == 1) and fault.at <= at < fault.at + fault.lasts:
            if self.rng.random() < fault.fails:
                over = at + FAILED_TRY_SECONDS
                if tried + 1 < MOST_TRIES:
                    heapq.heappush(self._queue, (over + self.rng.uniform(0, _PAUSE_SECONDS), sent, tried + 1))
                else:
                    self.answers.append(Answer(sent, None))
                    heapq.heappush(self._inside, over)
                return FAILED_TRY_SECONDS
            seconds += fault.slower_by
        self.answers.append(Answer(sent, at + seconds - sent))
        heapq.heappush(self._inside, at + seconds)
        return seconds

    def _grow(self, count: int, ready_at: float) -> None:
        for _ in range(count):
            self._count += 1
            self._alive.append(_Replica(self._count, ready_at))

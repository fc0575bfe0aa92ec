"""The controllers that are compared, each a rule on a metric; all aim at the same requests per replica."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from autoscaler.settings import AutoscaleSettings
from benchmarks.scaling import hpa, knative
from benchmarks.scaling.fleet import DECLARED_CAPACITY, SERVICE_SECONDS, STEP_SECONDS, Fleet, Signals
from benchmarks.scaling.policy import TrimtabPolicy

LEAST, MOST = 1, 12
RATE_SECONDS = 60.0
"""Window of the Prometheus query behind an external metric: `rate(...[1m])`, as in KEDA's own example."""
KEDA_POLL_SECONDS = 30.0


class Controller(Protocol):
    """Looks at each step; returns how many replicas it wants from now on, None for no change."""

    def look(self, signals: Signals) -> int | None:
        """After one more step."""


class Window:
    """The newest steps, for means over a time."""

    def __init__(self, longest: float) -> None:
        self._steps: deque[Signals] = deque(maxlen=round(longest / STEP_SECONDS))

    def add(self, signals: Signals) -> None:
        """Takes one more step in."""
        self._steps.append(signals)

    def mean(self, what: Callable[[Signals], float], seconds: float) -> float:
        """Per second over the last `seconds`, or over what there is yet."""
        steps = list(self._steps)[-round(seconds / STEP_SECONDS) :]
        return sum(map(what, steps)) / (len(steps) * STEP_SECONDS)


class HpaOnUtilisation:
    """HPA on a resource metric: how busy pods are, as metrics-server last said."""

    def __init__(self, start: float, rng: random.Random, target: float) -> None:
        self._rule, self._target = hpa.Hpa(LEAST, MOST), target
        self._window = Window(hpa.METRICS_SECONDS)
        self._scrape, self._sync = (start + rng.uniform(0, hpa.SYNC_SECONDS) for _ in range(2))
        self._value: float | None = None

    def look(self, signals: Signals) -> int | None:
        """See `Controller`."""
        self._window.add(signals)
        if signals.time >= self._scrape:
            self._scrape += hpa.METRICS_SECONDS
            serving = self._window.mean(lambda s: s.serving, hpa.METRICS_SECONDS)
            self._value = self._window.mean(lambda s: s.busy, hpa.METRICS_SECONDS) / serving if serving else None
        if signals.time < self._sync:
            return None
        self._sync += hpa.SYNC_SECONDS
        if self._value is None:
            return None
        desired = hpa.by_average(signals.replicas, signals.ready, self._value, self._target)
        return self._rule.decide(signals.time, signals.replicas, desired)


class KedaOnPrometheus:
    """KEDA with a Prometheus trigger: it makes an HPA on an external metric, which asks at each of its syncs.

    KEDA's own poll (30 s) and cooldown (300 s) decide only between none and one replica, and here there always is one. With
    `cached` (`useCachedMetrics: true`, not the default) the HPA gets what the last poll saw.
    """

    def __init__(
        self, start: float, rng: random.Random, metric: Callable[[Signals], float], seconds: float, target: float, cached: bool
    ) -> None:
        self._rule, self._metric, self._target = hpa.Hpa(LEAST, MOST), metric, target
        self._seconds, self._window = seconds, Window(seconds)
        self._every = KEDA_POLL_SECONDS if cached else 0.0
        self._sync = start + rng.uniform(0, hpa.SYNC_SECONDS)
        self._poll = start + rng.uniform(0, KEDA_POLL_SECONDS) if cached else start
        self._value: float | None = None

    def look(self, signals: Signals) -> int | None:
        """See `Controller`."""
        self._window.add(signals)
        if signals.time >= self._poll:
            self._poll += self._every
            self._value = self._window.mean(self._metric, self._seconds)
        if signals.time < self._sync:
            return None
        self._sync += hpa.SYNC_SECONDS
        if self._value is None:
            return None
        return self._rule.decide(signals.time, signals.replicas, hpa.by_total(signals.replicas, self._value, self._target))


class KnativeOn:
    """The Knative Pod Autoscaler on one of its two metrics."""

    def __init__(self, start: float, rng: random.Random, metric: Callable[[Signals], float], target: float) -> None:
        self._rule, self._metric = knative.Kpa(target, LEAST, MOST), metric
        self._window = Window(knative.STABLE_SECONDS)
        self._tick = start + rng.uniform(0, knative.TICK_SECONDS)

    def look(self, signals: Signals) -> int | None:
        """See `Controller`."""
        self._window.add(signals)
        if signals.time < self._tick:
            return None
        self._tick += knative.TICK_SECONDS
        means = (self._window.mean(self._metric, seconds) for seconds in (knative.STABLE_SECONDS, knative.PANIC_SECONDS))
        return self._rule.decide(signals.time, signals.ready, *means)


@dataclass(frozen=True)
class Entry:
    """A controller in the table: its name in figures, what it is and looks at, and how one is made for a run."""

    key: str
    name: str
    metric: str
    make: Callable[[float, random.Random], Controller]


def entries() -> list[Entry]:
    """All that are compared, with the settings' defaults on each side."""
    settings = AutoscaleSettings()
    rate = DECLARED_CAPACITY * settings.target_utilisation
    inside = in_flight_per_replica(rate)

    def arrivals(s: Signals) -> float:
        return s.arrivals

    def tries(s: Signals) -> float:
        return s.tries

    def in_flight(s: Signals) -> float:
        return s.in_flight

    return [
        Entry(
            "trimtab",
            "Trimtab",
            "arrivals at the gateway",
            lambda start, rng: TrimtabPolicy(start, DECLARED_CAPACITY, LEAST, MOST, settings),
        ),
        Entry(
            "hpa",
            "HPA",
            "utilisation of pods",
            lambda start, rng: HpaOnUtilisation(start, rng, rate * SERVICE_SECONDS),
        ),
        Entry(
            "keda",
            "KEDA",
            "arrivals at the gateway",
            lambda start, rng: KedaOnPrometheus(start, rng, arrivals, RATE_SECONDS, rate, cached=False),
        ),
        Entry(
            "keda_cached",
            "KEDA, cached",
            "arrivals at the gateway",
            lambda start, rng: KedaOnPrometheus(start, rng, arrivals, RATE_SECONDS, rate, cached=True),
        ),
        Entry(
            "keda_in_flight",
            "KEDA",
            "requests in flight",
            lambda start, rng: KedaOnPrometheus(start, rng, in_flight, STEP_SECONDS, inside, cached=False),
        ),
        Entry("kpa", "Knative KPA", "requests in flight", lambda start, rng: KnativeOn(start, rng, in_flight, inside)),
        Entry("kpa_rps", "Knative KPA", "tries at pods", lambda start, rng: KnativeOn(start, rng, tries, rate)),
    ]


def in_flight_per_replica(rate: float) -> float:
    """Mean requests in flight per replica when each of four gets `rate` Poisson arrivals per second: what the model says."""
    rng, fleet = random.Random(0), Fleet(random.Random(1), 0.0, 4, 0.0)
    at, total, seconds = rng.expovariate(4 * rate), 0.0, 300.0
    while fleet.now < seconds:
        arrivals = []
        while at < fleet.now + STEP_SECONDS:
            arrivals.append(at)
            at += rng.expovariate(4 * rate)
        total += fleet.step(arrivals).in_flight
    return total / seconds / 4

"""The metrics page of `trimtab metrics`, made afresh from what was observed each time it is scraped."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dashboards.observed import FAULTS, TAILS, FleetView, Observed
from trimtab.messages import Action, FindingKind, FleetState, Outcome, PoolState, ReplicaPhase, Severity

ACTIONS, OUTCOMES = get_args(Action), get_args(Outcome)
KINDS, SEVERITIES, PHASES = get_args(FindingKind), get_args(Severity), get_args(ReplicaPhase)


class Families(Collector):
    """A prometheus-client collector over `Observed`; `lock` guards it against the thread that feeds it."""

    def __init__(self, observed: Observed, lock: threading.Lock, clock: Callable[[], float] = time.time) -> None:
        self._observed, self._lock, self._clock = observed, lock, clock

    def collect(self) -> Iterator[Metric]:
        """Every family, in a stable order."""
        with self._lock:
            self._observed.forget(self._clock())
            families = [
                *_specs(self._observed), *_states(self._observed), *_scores(self._observed),
                *_findings(self._observed), *_decisions(self._observed), *_freshness(self._observed),
            ]  # fmt: skip
        yield from families


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"trimtab_{name}", about, labels=labels)


def _counter(name: str, about: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"trimtab_{name}", about, labels=labels)


def _specs(observed: Observed) -> list[Metric]:
    latency = _gauge("slo_latency_seconds", "What users were promised: the 99th percentile.", "fleet")
    errors = _gauge("slo_error_ratio", "What users were promised: the ratio of failed requests.", "fleet")
    capacity = _gauge("capacity_per_replica", "Requests per second that one replica serves within the SLO.", "fleet")
    bounds = _gauge("replica_bounds", "Fewest and most replicas that the owner allows.", "fleet", "bound")
    wanted = _gauge("wanted_version", "The version that the owner wants to serve.", "fleet")
    off = _gauge("hands_off", "1 while the owner keeps Trimtab from acting.", "fleet", "why")
    for fleet, view in observed.fleets.items():
        if (spec := view.spec) is None:
            continue
        latency.add_metric([fleet], spec.slo.p99_seconds)
        errors.add_metric([fleet], spec.slo.error_ratio)
        capacity.add_metric([fleet], spec.capacity_per_replica)
        bounds.add_metric([fleet, "min"], spec.min_replicas)
        bounds.add_metric([fleet, "max"], spec.max_replicas)
        wanted.add_metric([fleet], spec.version)
        off.add_metric([fleet, "paused"], spec.paused)
        off.add_metric([fleet, "dry_run"], spec.dry_run)
    return [latency, errors, capacity, bounds, wanted, off]


def _states(observed: Observed) -> list[Metric]:
    wanted = _gauge("pool_replicas_wanted", "Replicas that a pool should have.", "fleet", "pool", "version")
    phases = _gauge("pool_replicas", "Replicas of a pool by phase.", "fleet", "pool", "version", "phase")
    traffic = _gauge("pool_replicas_in_traffic", "Replicas that the gateway routes to.", "fleet", "pool", "version")
    weight = _gauge("pool_weight", "Share of the traffic of a pool, 0..1.", "fleet", "pool", "version")
    for fleet, view in observed.fleets.items():
        for pool in _pools(view.state):
            labels = [fleet, pool.role, str(pool.version)]
            wanted.add_metric(labels, pool.wanted)
            weight.add_metric(labels, pool.weight / 100)
            traffic.add_metric(labels, sum(each.in_traffic for each in pool.replicas))
            for phase in PHASES:
                phases.add_metric([*labels, phase], sum(each.phase == phase for each in pool.replicas))
    return [wanted, phases, traffic, weight]


def _pools(state: FleetState | None) -> Iterator[PoolState]:
    yield from state.pools if state else ()


def _scores(observed: Observed) -> list[Metric]:
    score = _gauge("score", "How unusual a target looked to a detector in the last tick, 0..1.", "fleet", "target", "detector")
    alarm = _gauge("score_alarm", "Score from which a learned detector is taken as evidence.")
    alarm.add_metric([], observed.alarm)
    alarming = _counter("scores_alarming", "Scores at or above the alarm.", "fleet", "detector")
    last = _gauge("detector_last_score_timestamp_seconds", "When a detector last said something.", "fleet", "detector")
    tails = HistogramMetricFamily(
        "trimtab_score_tail_ratio",
        "One minus each score: of a calibrated detector, a tenth is below 0.1.",
        labels=("fleet", "detector"),
    )
    for fleet, view in observed.fleets.items():
        for target, scores in view.scores.items():
            for detector, seen in scores.items():
                score.add_metric([fleet, target, detector], seen.score)
        for name, detector_view in view.detectors.items():
            alarming.add_metric([fleet, name], detector_view.alarming)
            if math.isfinite(detector_view.last):
                last.add_metric([fleet, name], detector_view.last)
            buckets = [(str(bound), float(n)) for bound, n in zip(TAILS, detector_view.tails, strict=True)]
            tails.add_metric([fleet, name], [*buckets, ("+Inf", float(detector_view.count))], detector_view.tail_sum)
    trained = _gauge("model_trained_timestamp_seconds", "End of the telemetry that the learned detectors know.", "fleet")
    for fleet, view in observed.fleets.items():
        if view.model:
            trained.add_metric([fleet], view.model.trained_to)
    return [score, alarm, alarming, last, tails, trained]


def _findings(observed: Observed) -> list[Metric]:
    amount = _gauge("findings_open", "Findings that fire now.", "fleet", "kind", "severity")
    firing = _gauge("finding_firing", "1 for each finding that fires now.", "fleet", "kind", "severity", "subject", "version")
    onset = _gauge("finding_onset_timestamp_seconds", "When the newest open finding of a kind began.", "fleet", "kind")
    found = _counter("findings", "Findings since the start.", "fleet", "kind", "severity")
    ended = _counter("findings_ended", "Faults that are over, and whether an act answered them.", "fleet", "kind", "answered")
    for fleet, view in observed.fleets.items():
        now = Tally((f.kind, f.severity) for f in view.open.values())
        for kind in KINDS:
            for severity in SEVERITIES:
                amount.add_metric([fleet, kind, severity], now[kind, severity])
                found.add_metric([fleet, kind, severity], view.findings[kind, severity])
            begins = [finding.onset for finding in view.open.values() if finding.kind == kind]
            if begins:
                onset.add_metric([fleet, kind], max(begins))
            if kind in FAULTS:
                for answered in (True, False):
                    ended.add_metric([fleet, kind, "yes" if answered else "no"], view.ended[kind, answered])
        for labels in sorted(_subjects(view)):
            firing.add_metric([fleet, *labels], 1)
    return [amount, firing, onset, found, ended]


def _subjects(view: FleetView) -> set[tuple[str, str, str, str]]:
    """Kind, severity, subject and version of the open findings; two findings of one subject are one series."""
    return {
        (f.kind, f.severity, f.target or f.pool or "fleet", "" if f.version is None else str(f.version))
        for f in view.open.values()
    }


def _decisions(observed: Observed) -> list[Metric]:
    made = _counter("fleet_decisions", "Decisions since the start.", "fleet", "action", "outcome")
    when = _gauge(
        "fleet_decision_timestamp_seconds", "When the newest decision of its kind was made.", "fleet", "action", "outcome"
    )
    for fleet, view in observed.fleets.items():
        for action in ACTIONS:
            for outcome in OUTCOMES:
                made.add_metric([fleet, action, outcome], view.decisions[action, outcome])
        for (action, outcome), at in sorted(view.decided.items()):
            when.add_metric([fleet, action, outcome], at)
    return [made, when]


def _freshness(observed: Observed) -> list[Metric]:
    newest = _gauge("last_message_timestamp_seconds", "Time of the newest message of a topic.", "fleet", "topic")
    for fleet, view in observed.fleets.items():
        for topic, at in sorted(view.newest.items()):
            newest.add_metric([fleet, topic], at)
    left_out = _counter("metrics_left_out", "Messages without a series because a limit was reached.", "limit")
    for limit in ("fleet", "target", "detector", "finding"):
        left_out.add_metric([limit], observed.left_out[limit])
    return [newest, left_out]

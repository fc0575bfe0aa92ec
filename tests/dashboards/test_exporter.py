"""What the exporter shows: each message, unknown kept unknown, every label bounded, and a bus that goes away and comes back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dashboards import exporter
from dashboards.families import Families
from dashboards.observed import Observed
from dashboards.settings import AlarmSettings, MetricsSettings
from detectors.settings import DetectSettings
from trimtab.memory_bus import MemoryBus
from trimtab.messages import (
    DECISIONS,
    FINDINGS,
    FLEETS,
    MODELS,
    SCORES,
    STATES,
    Decision,
    DetectorModel,
    Finding,
    FleetSpec,
    FleetState,
    Forgotten,
    PoolState,
    ReplicaState,
    Score,
)

NOW = 1_700_000_000.0
SPEC = FleetSpec(fleet="intent", model="m", version=2, capacity_per_replica=30.0, time=NOW)


def a_finding(id: str = "f1", **other: Any) -> Finding:
    usual: dict[str, Any] = {
        "fleet": "intent", "kind": "replica_fault", "severity": "critical", "onset": NOW - 3, "time": NOW, "state": "firing",
        "confidence": 0.9, "summary": "-", "target": "r1", "version": 2,
    }  # fmt: skip
    return Finding(id=id, **(usual | other))


def a_decision(id: str = "d1", **other: Any) -> Decision:
    usual: dict[str, Any] = {"fleet": "intent", "time": NOW + 1, "action": "quarantine", "outcome": "applied", "reason": "-"}
    return Decision(id=id, **(usual | other))


@pytest.fixture
def observed() -> Observed:
    return Observed(MetricsSettings(), 0.995, started=NOW - 100)


def shown(observed: Observed, now: float = NOW) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(name, labels) -> value, as a scraper reads the page."""
    registry = CollectorRegistry()
    registry.register(Families(observed, threading.Lock(), lambda: now))
    page = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(observed: Observed, name: str, now: float = NOW, **labels: str) -> float | None:
    found = [v for (n, have), v in shown(observed, now).items() if n == name and set(labels.items()) <= set(have)]
    assert len(found) <= 1, found
    return found[0] if found else None


def test_nothing_known_is_nothing_shown(observed: Observed) -> None:
    assert {name for name, labels in shown(observed)} == {"trimtab_score_alarm", "trimtab_metrics_left_out_total"}


def test_promises_replicas_and_weights(observed: Observed) -> None:
    observed.take(FLEETS, SPEC)
    replicas = [
        ReplicaState(name="a", version=2, phase="ready", since=0, in_traffic=True),
        ReplicaState(name="b", version=2, phase="failed", since=0),
    ]
    pool = PoolState(version=2, role="canary", weight=20, wanted=3, replicas=replicas)
    observed.take(STATES, FleetState(fleet="intent", time=NOW, pools=[pool]))
    assert value(observed, "trimtab_slo_latency_seconds") == 0.25
    assert value(observed, "trimtab_hands_off", why="paused") == 0
    assert value(observed, "trimtab_pool_weight", pool="canary", version="2") == 0.2
    assert value(observed, "trimtab_pool_replicas_wanted") == 3
    assert value(observed, "trimtab_pool_replicas", phase="failed") == 1
    assert value(observed, "trimtab_pool_replicas_in_traffic") == 1


def test_scores_end_when_nobody_repeats_them_but_their_counts_stay(observed: Observed) -> None:
    for score in (0.2, 0.999, float("nan")):
        observed.take(SCORES, Score(fleet="intent", target="r1", time=NOW, detector="peers", score=score))
    assert value(observed, "trimtab_score", target="r1", detector="peers") == 0.999
    assert value(observed, "trimtab_scores_alarming_total") == 1
    assert value(observed, "trimtab_score_tail_ratio_count") == 2
    assert value(observed, "trimtab_score_tail_ratio_bucket", le="0.005") == 1
    assert value(observed, "trimtab_score_tail_ratio_bucket", le="1.0") == 2
    assert value(observed, "trimtab_score", NOW + 61) is None
    assert value(observed, "trimtab_detector_last_score_timestamp_seconds", NOW + 61) == NOW


def test_a_finding_fires_counts_once_and_ends(observed: Observed) -> None:
    for _ in range(3):
        observed.take(FINDINGS, a_finding())
    assert value(observed, "trimtab_findings_open", kind="replica_fault", severity="critical") == 1
    assert value(observed, "trimtab_findings_open", kind="gpu_fault", severity="critical") == 0
    assert value(observed, "trimtab_finding_firing", subject="r1", version="2") == 1
    assert value(observed, "trimtab_finding_onset_timestamp_seconds") == NOW - 3
    observed.take(DECISIONS, a_decision(because=["f1", "arrivals_per_second=3"]))
    for _ in range(2):
        observed.take(FINDINGS, a_finding(state="resolved", time=NOW + 9))
    assert value(observed, "trimtab_finding_firing") is None
    assert value(observed, "trimtab_findings_total", kind="replica_fault", severity="critical") == 1
    assert value(observed, "trimtab_findings_ended_total", kind="replica_fault", answered="yes") == 1
    assert value(observed, "trimtab_findings_ended_total", kind="replica_fault", answered="no") == 0


def test_an_open_finding_that_nobody_repeats_is_unknown(observed: Observed) -> None:
    observed.take(FINDINGS, a_finding())
    assert value(observed, "trimtab_finding_firing", NOW + 61) is None


def test_what_was_before_the_start_is_known_but_not_counted(observed: Observed) -> None:
    observed.take(FINDINGS, a_finding(time=NOW - 200, onset=NOW - 210))
    observed.take(DECISIONS, a_decision(time=NOW - 200))
    assert value(observed, "trimtab_findings_total", kind="replica_fault", severity="critical") == 0
    assert value(observed, "trimtab_fleet_decisions_total", action="quarantine", outcome="applied") == 0
    assert value(observed, "trimtab_fleet_decision_timestamp_seconds", action="quarantine") == NOW - 200


def test_a_decision_that_comes_twice_counts_once_and_its_success_after_a_failure_counts_too(observed: Observed) -> None:
    for outcome in ("failed", "failed", "applied"):
        observed.take(DECISIONS, a_decision(outcome=outcome))
    assert value(observed, "trimtab_fleet_decisions_total", action="quarantine", outcome="failed") == 1
    assert value(observed, "trimtab_fleet_decisions_total", action="quarantine", outcome="applied") == 1


def test_a_model_s_age_is_that_of_its_telemetry(observed: Observed) -> None:
    observed.take(
        MODELS, DetectorModel(fleet="intent", path="p", digest="d", trained_from=NOW - 90, trained_to=NOW - 60, time=NOW)
    )
    assert value(observed, "trimtab_model_trained_timestamp_seconds") == NOW - 60


def test_a_flood_of_names_stays_within_the_limits() -> None:
    limits = MetricsSettings(fleets=3, targets=5, detectors=4, findings=6)
    observed = Observed(limits, 0.995, started=NOW - 100)
    for number in range(40):
        observed.take(FLEETS, FleetSpec(fleet=f"fleet {number}", model="m", version=1, capacity_per_replica=1.0))
        for detector in range(10):
            observed.take(SCORES, Score(fleet="fleet 0", target=f"t{number}", time=NOW, detector=f"d{detector}", score=0.5))
        observed.take(FINDINGS, a_finding(f"f{number}", fleet="fleet 0", target=f"t{number}"))
    page = shown(observed)
    count = Counter(name for name, _ in page)
    assert count["trimtab_wanted_version"] == 3
    assert count["trimtab_score"] == 5 * 4
    assert count["trimtab_finding_firing"] == 6
    assert value(observed, "trimtab_metrics_left_out_total", limit="fleet") == 37
    assert value(observed, "trimtab_metrics_left_out_total", limit="target") == 35 * 4
    assert value(observed, "trimtab_metrics_left_out_total", limit="finding") == 34
    assert len(page) < 500


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_any_name_of_a_fleet_or_target_gives_a_page_that_can_be_read(fleet: str, target: str) -> None:
    observed = Observed(MetricsSettings(), 0.995, started=NOW - 100)
    observed.take(FLEETS, FleetSpec(fleet=fleet, model="m", version=1, capacity_per_replica=1.0))
    observed.take(SCORES, Score(fleet=fleet, target=target, time=NOW, detector="peers", score=0.5))
    assert value(observed, "trimtab_score", fleet=fleet, target=target) == 0.5


def test_the_alarm_is_the_detectors_own_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AlarmSettings().alarm == DetectSettings().alarm
    monkeypatch.setenv("TRIMTAB_DETECT_ALARM", "0.98")
    monkeypatch.setenv("TRIMTAB_DETECT_GRACE", "0.5")
    assert AlarmSettings().alarm == DetectSettings().alarm == 0.98


def test_a_forgotten_fleet_shows_nothing_until_it_is_there_again(observed: Observed) -> None:
    decision = Decision(id="d", fleet="intent", time=NOW, action="hold", outcome="applied", reason="because")
    observed.take(FLEETS, SPEC)
    observed.take(MODELS, Forgotten(fleet="intent"))
    assert value(observed, "trimtab_wanted_version") == 2
    observed.take(FLEETS, Forgotten(fleet="intent"))
    observed.take(DECISIONS, decision)  # still on the way, or older and read from another partition later
    assert not observed.fleets and value(observed, "trimtab_wanted_version") is None
    observed.take(FLEETS, SPEC)
    observed.take(DECISIONS, decision)
    assert value(observed, "trimtab_wanted_version") == 2 and observed.fleets["intent"].decisions


def test_the_exporter_waits_for_a_bus_that_is_away_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_RETRY_SECONDS", 0.01)
    registry = CollectorRegistry()
    monkeypatch.setattr(exporter, "REGISTRY", registry)
    bus, stop = MemoryBus(), threading.Event()
    bus.ensure_topics()
    bus.producer().send(FLEETS, SPEC)
    arguments = (bus, MetricsSettings(), AlarmSettings(), stop)
    thread = threading.Thread(target=exporter.run, args=arguments, kwargs={"host": "127.0.0.1", "port": 0})
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while b"trimtab_wanted_version{" not in generate_latest(registry) and time.monotonic() < deadline:
            time.sleep(0.02)
        bus.away = True
        bus.away = False
        bus.producer().send(SCORES, Score(fleet="intent", target="r1", time=time.time(), detector="peers", score=0.5))
        while b"trimtab_score{" not in generate_latest(registry) and time.monotonic() < deadline:
            time.sleep(0.02)
        page = generate_latest(registry)
    finally:
        stop.set()
        thread.join(10)
    assert b'trimtab_wanted_version{fleet="intent"} 2.0' in page
    assert b'trimtab_score{detector="peers",fleet="intent",target="r1"} 0.5' in page

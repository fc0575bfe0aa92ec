"""Each fault gives its finding and no other; each look-alike gives none."""

from __future__ import annotations

from typing import Any

import pytest

from detectors.pipeline import Pipeline
from trimtab.messages import FleetSpec

WARM = 40


@pytest.fixture
def fleet(world: Any, replica: Any) -> Any:
    """Two replicas of version 1 in traffic."""
    return world([replica("a"), replica("b")], seed=5)


@pytest.fixture
def pipeline(settings: Any, models: Any) -> Pipeline:
    made = Pipeline("intent", settings, models)
    made.on_spec(FleetSpec(fleet="intent", model="intent", version=1, capacity_per_replica=60.0))
    return made


def first(findings: list[Any], kind: str) -> Any:
    return next(f for f in findings if f.kind == kind)


def test_a_healthy_fleet_gives_nothing_and_the_learned_scores_are_there(fleet: Any, pipeline: Pipeline) -> None:
    assert fleet.run(pipeline, 120) == []
    learned = {s.detector for s in fleet.scores}
    assert {"isolation_forest", "cnn_lstm", "peers", "history", "invariants", "ensemble", "change_point"} <= learned
    late = [s.score for s in fleet.scores if s.detector == "ensemble"]
    assert sum(s >= 0.995 for s in late) <= 0.02 * len(late)


@pytest.mark.parametrize(("state", "word", "within"), [("hang", "hangs", 3.0), ("down", "is down", 3.0)])
def test_a_replica_that_no_longer_answers(
    fleet: Any, pipeline: Pipeline, named: Any, state: str, word: str, within: float
) -> None:
    fleet.run(pipeline, WARM)
    fault = fleet.now
    fleet.replicas["b"].state = state
    found = fleet.run(pipeline, 12)
    assert named(found) == {("replica_fault", "b")}
    assert word in found[0].summary
    assert found[0].time - fault <= within and found[0].onset >= fault
    assert len({f.id for f in found}) == 1 and len(found) <= 3  # repeated at most every 5 s
    assert {"isolation_forest", "cnn_lstm"} <= {e.detector for e in found[0].evidence}
    fleet.replicas["b"].state = "up"
    assert fleet.run(pipeline, 12)[-1].state == "resolved"


def test_a_hang_is_seen_although_each_failed_scrape_comes_after_its_tick_was_closed(
    fleet: Any, pipeline: Pipeline, named: Any
) -> None:
    fleet.run(pipeline, WARM)
    fleet.replicas["b"].state = "hang"
    found, waiting = [], []
    for _ in range(8):
        snapshots = fleet.step()
        for snapshot in snapshots:
            if snapshot.up:
                found += pipeline.on_snapshot(snapshot, snapshot.time + snapshot.took).findings
        found += pipeline.on_time(fleet.now + 0.7).findings  # the tick before this one is closed
        for snapshot in waiting:
            found += pipeline.on_snapshot(snapshot, fleet.now + 0.75).findings
        waiting = [snapshot for snapshot in snapshots if not snapshot.up]
    assert pipeline.refused["late"] >= 5
    assert named(found) == {("replica_fault", "b")} and "hangs" in found[0].summary


def test_the_only_replica_hangs(world: Any, replica: Any, pipeline: Pipeline, named: Any) -> None:
    one = world([replica("a")], seed=8)
    one.run(pipeline, WARM)
    one.replicas["a"].state = "hang"
    assert ("replica_fault", "a") in named(one.run(pipeline, 10))


def test_a_slow_replica_among_peers(fleet: Any, pipeline: Pipeline, named: Any) -> None:
    fleet.run(pipeline, WARM)
    fleet.replicas["b"].extra = 0.3
    found = fleet.run(pipeline, 10)
    assert named(found) == {("replica_fault", "b")}
    assert "slow" in found[0].summary
    scores = {e.detector: e.score for e in found[0].evidence}
    assert scores["cnn_lstm"] > 0.99 and scores["isolation_forest"] > 0.95


@pytest.mark.parametrize("trained", [True, False])
def test_a_slow_only_replica_against_its_past(
    world: Any, replica: Any, settings: Any, models: Any, named: Any, trained: bool
) -> None:
    one = world([replica("a")], rate=8.0, seed=9)
    pipeline = Pipeline("intent", settings, models if trained else None)
    one.run(pipeline, WARM)
    one.replicas["a"].extra = 0.3
    assert named(one.run(pipeline, 10)) == {("replica_fault", "a")}


@pytest.mark.parametrize(("starved", "expected"), [(True, set()), (False, {("replica_fault", "a")})])
def test_a_slow_only_replica_on_a_starved_machine_is_no_fault(
    world: Any, replica: Any, settings: Any, named: Any, starved: bool, expected: set[tuple[str, str]]
) -> None:
    one = world([replica("a")], rate=8.0, seed=9)
    pipeline = Pipeline("intent", settings, None)
    one.run(pipeline, WARM)
    one.replicas["a"].extra = 0.3
    one.took = 0.3 if starved else one.took  # every page comes late, not only the replica's
    assert named(one.run(pipeline, 15)) == expected


def test_a_replica_that_fails_requests(fleet: Any, pipeline: Pipeline, named: Any) -> None:
    fleet.run(pipeline, WARM)
    fleet.replicas["b"].failing = 0.6
    found = fleet.run(pipeline, 10)
    assert named(found) == {("replica_fault", "b")} and "fails" in found[0].summary


def test_a_gpu_falls_off_the_bus(fleet: Any, pipeline: Pipeline, named: Any) -> None:
    fleet.run(pipeline, WARM)
    fleet.replicas["b"].gpu.update(XID_ERRORS=79.0, FB_USED=None)
    found = fleet.run(pipeline, 10)
    assert named(found) == {("gpu_fault", "b")}
    assert "XID 79" in found[0].summary and found[0].severity == "critical"


def test_an_old_xid_and_an_applications_own_are_no_finding(fleet: Any, pipeline: Pipeline) -> None:
    fleet.replicas["a"].gpu["XID_ERRORS"] = 79.0  # DCGM never clears it: it may be from last week
    fleet.run(pipeline, WARM)
    fleet.replicas["b"].gpu["XID_ERRORS"] = 45.0
    assert fleet.run(pipeline, 10) == [] and fleet.findings == []


def release(fleet: Any, replica: Any, version: int = 2, **faults: Any) -> None:
    fleet.replicas["c"] = replica("c", version=version, role="canary", weight=0.7, **faults)


@pytest.mark.parametrize(
    ("faults", "kind", "within"),
    [
        ({"extra": 0.2}, "version_regression", 8),
        ({"failing": 0.5}, "version_regression", 10),
        ({"wrong": 0.37}, "quality_shift", 25),
        ({"leak": 1.0e6}, "version_regression", 40),
    ],
)
def test_a_bad_version(fleet: Any, replica: Any, pipeline: Pipeline, named: Any, faults: Any, kind: str, within: int) -> None:
    fleet.run(pipeline, WARM)
    release(fleet, replica, **faults)
    found = fleet.run(pipeline, within)
    assert named(found) == {(kind, 2)}
    assert found[0].pool == "canary" and found[0].version == 2
    assert "isolation_forest" in {e.detector for f in fleet.run(pipeline, 6) + found for e in f.evidence}


def test_a_version_that_crashes(fleet: Any, replica: Any, pipeline: Pipeline, named: Any) -> None:
    fleet.run(pipeline, WARM)
    release(fleet, replica)
    fleet.run(pipeline, 5)
    fleet.replicas["c"].state = "down"
    assert named(fleet.run(pipeline, 8)) == {("version_regression", 2)}


def test_a_slow_version_in_the_middle_of_a_surge(fleet: Any, replica: Any, pipeline: Pipeline, named: Any) -> None:
    fleet.run(pipeline, WARM)
    fleet.rate = 80
    fleet.run(pipeline, 8)
    release(fleet, replica, extra=0.2)
    found = fleet.run(pipeline, 10)
    assert ("version_regression", 2) in named(found)
    assert not {k for k, _ in named(found)} & {"replica_fault", "dependency_fault", "telemetry_gap"}


def test_everything_fails_at_the_gateway(fleet: Any, pipeline: Pipeline, named: Any) -> None:
    fleet.run(pipeline, WARM)
    fleet.gateway_errors = 0.8
    assert named(fleet.run(pipeline, 10)) == {("dependency_fault", None)}


def test_all_replicas_die_together(fleet: Any, pipeline: Pipeline, named: Any) -> None:
    fleet.run(pipeline, WARM)
    for r in fleet.replicas.values():
        r.state = "down"
    assert named(fleet.run(pipeline, 10)) == {("dependency_fault", None)}


def test_a_surge_is_demand_and_flagged_within_three_ticks(fleet: Any, pipeline: Pipeline, named: Any) -> None:
    fleet.run(pipeline, WARM)
    fleet.rate = 80
    found = fleet.run(pipeline, 40)
    assert {k for k, _ in named(found)} <= {"demand_shift", "saturation"}
    assert first(found, "demand_shift").time - first(found, "demand_shift").onset <= 3
    fleet.rate = 20
    assert {k for k, _ in named(fleet.run(pipeline, 30))} <= {"demand_shift", "saturation"}
    assert fleet.findings[-1].state == "resolved"


def test_a_further_rise_is_a_finding_of_its_own(fleet: Any, pipeline: Pipeline) -> None:
    fleet.rate = 1
    fleet.run(pipeline, 20)
    fleet.rate = 20
    start = first(fleet.run(pipeline, 30), "demand_shift")
    fleet.rate = 80
    surge = fleet.now
    found = [f for f in fleet.run(pipeline, 12) if f.kind == "demand_shift"]
    new = next(f for f in found if f.id != start.id)
    assert new.onset >= surge and new.time - surge <= 3
    assert new.evidence[0].expected == pytest.approx(20, rel=0.15)
    assert {f.id for f in found} == {start.id, new.id}
    assert next(f for f in found if f.id == start.id and f.state == "resolved")
    fleet.rate = 20
    assert next(f for f in fleet.run(pipeline, 15) if f.id == new.id and f.state == "resolved")


@pytest.mark.parametrize("seed", [6, 7, 8])
def test_a_bursty_start_is_one_rise(world: Any, replica: Any, settings: Any, seed: int) -> None:
    def burst(w: Any) -> None:
        w.rate = float(w.rng.gamma(20 / 1.3, 1.3))

    fleet, pipeline = world([replica("a"), replica("b")], seed=seed, rate=1.0), Pipeline("intent", settings)
    fleet.run(pipeline, 20)
    fleet.run(pipeline, 80, before=burst)
    assert len({f.id for f in fleet.findings if f.kind == "demand_shift"}) == 1


def test_a_surge_that_one_replica_cannot_serve_is_saturation(world: Any, replica: Any, pipeline: Pipeline, named: Any) -> None:
    one = world([replica("a", infer=0.02)], seed=4)
    one.run(pipeline, WARM)
    one.rate = 110
    found = one.run(pipeline, 20)
    assert {k for k, _ in named(found)} == {"demand_shift", "saturation"}


@pytest.mark.parametrize("kind", ["timeout", "silence", "frozen"])
def test_a_telemetry_outage_is_a_gap_and_nothing_else(fleet: Any, pipeline: Pipeline, named: Any, kind: str) -> None:
    fleet.run(pipeline, WARM)
    fleet.outage, fleet.outage_kind = fleet.all_targets(), kind
    found = fleet.run(pipeline, 15)
    assert named(found) == {("telemetry_gap", None)}
    fleet.outage = None
    found = fleet.run(pipeline, 20)
    assert named(found) == {("telemetry_gap", None)} and found[-1].state == "resolved"


def test_the_only_replica_is_not_seen_but_serves(world: Any, replica: Any, pipeline: Pipeline, named: Any) -> None:
    one = world([replica("a")], seed=8)
    one.run(pipeline, WARM)
    one.outage = {"a"}
    assert named(one.run(pipeline, 10)) == {("telemetry_gap", "a")}


def test_the_gateways_page_alone_is_missing(fleet: Any, pipeline: Pipeline, named: Any) -> None:
    fleet.run(pipeline, WARM)
    fleet.outage = {"gateway"}
    assert named(fleet.run(pipeline, 10)) == {("telemetry_gap", "gateway")}


def test_scaling_up_and_down_is_no_fault(fleet: Any, replica: Any, pipeline: Pipeline) -> None:
    fleet.run(pipeline, WARM)
    fleet.replicas["c"] = replica("c", state="starting")
    fleet.run(pipeline, 4)
    fleet.replicas["c"].state = "up"
    fleet.run(pipeline, 30)
    fleet.replicas["c"].weight = 0.0  # drained
    fleet.run(pipeline, 4)
    fleet.replicas["c"].state = "down"  # stopped before discovery knows
    fleet.run(pipeline, 2)
    del fleet.replicas["c"]
    fleet.run(pipeline, 20)
    assert fleet.findings == []


@pytest.mark.parametrize("seed", range(3))
def test_a_good_release_is_no_finding(world: Any, replica: Any, pipeline: Pipeline, seed: int) -> None:
    fleet = world([replica("a"), replica("b")], seed=20 + seed)
    fleet.run(pipeline, WARM)
    release(fleet, replica, infer=0.012, wrong=0.06, memory=260e6)
    fleet.run(pipeline, 60)
    for r in fleet.replicas.values():  # promoted: the old version stays warm without traffic
        r.role, r.weight = ("stable", 1.0) if r.version == 2 else ("previous", 0.0)
    fleet.run(pipeline, 40)
    assert fleet.findings == []


def test_a_restart_with_reset_counters_is_no_finding(fleet: Any, pipeline: Pipeline) -> None:
    fleet.run(pipeline, WARM)
    fleet.replicas["b"].restart()
    fleet.run(pipeline, 20)
    assert fleet.findings == []
    assert any(s.detector == "invariants" and s.target == "b" and s.score == 0.99 for s in fleet.scores)


def test_an_idle_fleet_is_no_finding(fleet: Any, pipeline: Pipeline, named: Any) -> None:
    fleet.run(pipeline, WARM)
    fleet.rate = 0.0
    assert named(fleet.run(pipeline, 40)) <= {("demand_shift", None)}


def test_a_bursty_trace_is_not_flagged_all_the_time(world: Any, replica: Any, pipeline: Pipeline) -> None:
    fleet = world([replica("a"), replica("b")], seed=6)

    def burst(w: Any) -> None:  # variance 2.3 times the mean, as the Azure conversation trace at 22/s
        w.rate = float(w.rng.gamma(20 / 1.3, 1.3))

    fleet.run(pipeline, 300, before=burst)
    flagged = {f.id for f in fleet.findings}
    assert len(flagged) <= 1 and {f.kind for f in fleet.findings} <= {"demand_shift"}

"""The seven promises of the policy, each by name, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoscaler.rollout import Phase

Make = Callable[..., Any]
Slow = Callable[..., Any]


def running(simulation: Make, **fields: Any) -> Any:
    """A fleet of two replicas of version 1 that has served for forty seconds."""
    world = simulation(**fields)
    world.run(40)
    assert len(world.names(1)) >= 2
    world.decisions.clear()
    return world


def test_1_replicas_follow_arrivals_never_a_fault(simulation: Make, behaviour: Slow) -> None:
    world = running(simulation)
    world.behaviour[1] = behaviour(latency_ms=400, failing=0.3)  # the version that serves becomes slow and fails
    world.find(kind="saturation", id="s1", pool="stable", version=1)
    world.find(kind="demand_shift", id="d1")  # a finding alone is no arrival
    world.run(60)
    assert not world.did("scale")
    held = [d for d in world.did("hold") if "s1" in d.because]
    assert len(held) == 1 and "demand does not explain it" in held[0].reason
    world.rate = 80.0
    assert world.run(10, until=lambda: bool(world.did("scale"))) <= 3
    world.run(5)
    assert world.did("scale")[-1].to["replicas"] == 4
    assert any(text.startswith("arrivals_per_second=") for text in world.did("scale")[0].because)


@pytest.mark.parametrize("how", ["missing", "frozen", "gap"])
def test_2_unknown_telemetry_never_scales_down_and_never_rolls_back(simulation: Make, behaviour: Slow, how: str) -> None:
    world = running(simulation, rate=80.0)
    world.rate = 2.0
    world.run(90)
    before = [(pool.version, pool.replicas) for pool in world.memory.plan.pools]
    if how == "gap":
        world.find(kind="telemetry_gap", id="g1", target="gateway")
    elif how == "missing":
        world.telemetry = False
    else:
        world._snapshots, frozen = (lambda: [frozen[0]]), world._snapshots()
    world.decisions.clear()
    world.run(200)
    assert [(pool.version, pool.replicas) for pool in world.memory.plan.pools] == before
    assert [d.action for d in world.decisions] == ["hold"]  # said once
    assert "nothing is scaled down" in world.decisions[0].reason


def test_2_a_regression_finding_does_not_roll_back_while_blind(simulation: Make) -> None:
    world = running(simulation)
    world.release(2)
    world.run(20, until=lambda: world.memory.rollout.phase is Phase.CANARY)
    world.telemetry = False
    world.run(6)
    world.find(kind="version_regression", version=2, id="r1")
    world.run(10)
    assert not world.did("rollback") and not world.did("promote")
    world.telemetry = True
    world.run(3)
    assert world.did("rollback")[0].because == ["r1"]


def test_3_one_owner_scaling_knows_of_the_canary(simulation: Make) -> None:
    world = running(simulation)
    world.release(2)
    world.run(30, until=lambda: world.memory.rollout.step == 1)
    world.rate = 80.0
    world.run(5)
    pools = {pool.version: pool for pool in world.memory.plan.pools}
    assert pools[1].replicas + pools[2].replicas <= 6
    assert pools[2].replicas >= 2  # the canary grows with the demand too
    for plan in world.plans:
        assert sum(pool.weight for pool in plan.pools) == 100


def test_3_a_promotion_waits_for_enough_replicas(simulation: Make) -> None:
    world = running(simulation, rate=80.0)
    world.release(2)
    world.run(60, until=lambda: bool(world.did("promote")))
    assert len(world.names(2)) >= 3
    pools = {pool.version: pool for pool in world.memory.plan.pools}
    assert (pools[2].role, pools[2].weight) == ("stable", 90)
    assert (pools[1].role, pools[1].weight) == ("previous", 10)


def test_4_too_few_samples_means_hold(simulation: Make) -> None:
    world = running(simulation, rate=0.5)
    world.release(2)
    world.run(60)
    assert not world.did("promote") and not world.did("rollback")
    holds = [d for d in world.did("hold") if d.version == 2]
    assert len(holds) <= 2
    assert all("too few samples" in d.reason for d in holds) and holds


def test_4_what_hits_both_versions_speaks_against_neither(simulation: Make, behaviour: Slow) -> None:
    world = running(simulation)
    world.release(2)
    world.run(30, until=lambda: world.memory.rollout.phase is Phase.CANARY)
    world.behaviour[1] = behaviour(latency_ms=300, failing=0.2)
    world.behaviour[2] = behaviour(latency_ms=300, failing=0.2)
    world.run(30)
    assert not world.did("rollback")


def test_4_a_missing_answer_feed_holds_the_promotion(simulation: Make) -> None:
    world = running(simulation)
    world.release(2)
    world.run(20, until=lambda: world.memory.rollout.phase is Phase.CANARY)
    world.labels = False
    world.run(40)
    assert not world.did("promote")
    assert any("right and wrong answers" in d.reason for d in world.did("hold"))


def test_5_the_previous_version_stays_warm_and_the_comparison_goes_on(simulation: Make, behaviour: Slow) -> None:
    world = running(simulation)
    world.release(2)
    world.run(60, until=lambda: bool(world.did("promote")))
    assert len(world.names(1)) >= 2
    world.behaviour[2] = behaviour(latency_ms=300)
    took = world.run(30, until=lambda: bool(world.did("rollback")))
    assert took <= 10
    assert world.memory.plan.pools[0].version == 1 and world.memory.plan.pools[0].weight == 100
    assert world.memory.rollout.stable == 1


def test_5_after_the_guard_the_previous_version_is_drained(simulation: Make) -> None:
    world = running(simulation)
    world.release(2)
    world.run(60, until=lambda: bool(world.did("promote")))
    assert 29 <= world.run(60, until=lambda: world.memory.rollout.phase is Phase.IDLE) <= 32
    world.run(5)
    assert [pool.version for pool in world.actuator.observe("intent").pools] == [2]


def test_6_quarantine_takes_one_out_at_once_and_replaces_it(simulation: Make) -> None:
    world = running(simulation)
    sick = world.names(1)[0]
    world.find(kind="replica_fault", target=sick, id="q1")
    world.tick()
    (decision,) = world.did("quarantine")
    assert (decision.target, decision.because) == (sick, ["q1"])
    world.run(8)
    assert len(world.names(1)) == 2 and sick not in world.names(1)


def test_6_many_at_once_are_not_a_replica_fault(simulation: Make) -> None:
    world = running(simulation)
    for number, name in enumerate(world.names(1)):
        world.find(kind="replica_fault", target=name, id=f"q{number}")
    world.run(30)
    assert not world.did("quarantine")
    assert len(world.did("hold")) == 2
    assert "not a replica fault" in world.did("hold")[0].reason


def test_6_the_budget_ends(simulation: Make) -> None:
    world = running(simulation)
    for number in range(5):
        world.find(kind="gpu_fault", target=world.names(1)[0], id=f"q{number}")
        world.run(70)
    assert len(world.did("quarantine")) == 3
    assert "the budget is spent" in world.did("hold")[-1].reason


def test_6_a_dead_replica_is_replaced_and_a_resolved_one_released(simulation: Make) -> None:
    world = running(simulation)
    world.actuator.fail("intent", world.names(1)[0], "signal 9")
    world.run(10)
    assert "signal 9" in world.did("quarantine")[0].reason and len(world.names(1)) == 2
    world.run(70)
    sick = world.names(1)[0]
    world.find(kind="replica_fault", target=sick, id="q1")
    world.run(10)
    world.find(kind="replica_fault", target=sick, id="q1", state="resolved")
    world.run(70)
    assert [d.target for d in world.did("release")] == [sick]


def test_6_the_only_replica_of_a_canary_counts_for_the_rollout(simulation: Make) -> None:
    world = running(simulation)
    world.release(2)
    world.run(30, until=lambda: world.memory.rollout.phase is Phase.CANARY)
    world.find(kind="replica_fault", target=world.names(2)[0], id="q1")
    world.tick()
    assert world.did("rollback")[0].because == ["q1"] and not world.did("quarantine")


def test_7_refusals_are_said_once_and_acts_have_the_id_of_their_cause(simulation: Make) -> None:
    world = running(simulation)
    world.change(paused=True)
    world.rate = 80.0
    world.run(30)
    assert {d.action for d in world.decisions} == {"scale"}
    assert all(d.outcome == "refused" and "paused" in d.reason for d in world.decisions)
    assert len({d.id for d in world.decisions}) == len(world.decisions)
    assert world.memory.plan.pools[0].replicas == 2
    world.change(paused=False)
    world.tick()
    assert world.decisions[-1].outcome == "applied"


def test_7_a_dry_run_says_and_does_not(simulation: Make) -> None:
    world = running(simulation)
    applied = world.actuator.applied
    world.change(dry_run=True)
    world.find(kind="replica_fault", target=world.names(1)[0], id="q1")
    world.release(2)
    world.run(20)
    assert {d.action for d in world.decisions} >= {"quarantine", "shift_traffic"}
    assert all(d.dry_run and d.outcome == "refused" for d in world.decisions)
    assert len({d.id for d in world.decisions}) == len(world.decisions)
    assert world.actuator.applied == applied

"""Rollouts in virtual time: how fast good ones pass and bad ones end, and the corners of releasing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoscaler.rollout import Phase
from autoscaler.settings import AutoscaleSettings

Make = Callable[..., Any]
SEEDS = [1, 2, 3]


def released(simulation: Make, seed: int, how: Any = None, **fields: Any) -> Any:
    world = simulation(seed=seed, **fields)
    world.run(40)
    world.release(2, how)
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_a_good_version_is_promoted_within_35_seconds(simulation: Make, seed: int) -> None:
    world = released(simulation, seed)
    assert world.run(60, until=lambda: bool(world.did("promote"))) <= 35
    decision = world.did("promote")[0]
    assert decision.guard["error_upper"] <= 0.05 and "not worse than version 1" in decision.reason


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", [{"latency_ms": 215.0}, {"failing": 1.0}, {"failing": 0.5}])
def test_a_bad_version_is_rolled_back_within_ten_seconds_of_its_first_answer(
    simulation: Make, behaviour: Any, seed: int, fault: dict[str, float]
) -> None:
    world = released(simulation, seed, behaviour(**fault))
    world.run(30, until=lambda: world.memory.rollout.phase is Phase.CANARY)
    assert world.run(60, until=lambda: bool(world.did("rollback"))) <= 10
    world.run(60)
    assert world.memory.rollout.stable == 1 and not world.did("promote") and len(world.did("rollback")) == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_confident_wrong_answers_are_rolled_back(simulation: Make, behaviour: Any, seed: int) -> None:
    world = released(simulation, seed, behaviour(wrong=0.35))
    assert world.run(90, until=lambda: bool(world.did("rollback"))) <= 40
    assert "wrong answers" in world.did("rollback")[0].reason and not world.did("promote")


def test_surge_and_fault_a_slow_version_in_a_surge_is_rolled_back_not_scaled_around(simulation: Make, behaviour: Any) -> None:
    world = simulation(seed=5)
    world.run(40)
    world.rate = 80.0
    world.run(8)
    assert world.memory.size == 4
    world.decisions.clear()
    world.release(2, behaviour(latency_ms=230))
    world.run(40)
    assert len(world.did("rollback")) == 1 and not world.did("promote")
    assert not [d for d in world.did("scale") if d.to["replicas"] > 4 and d.version == 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_healthy_ten_minutes_with_a_promotion(simulation: Make, seed: int) -> None:
    world = released(simulation, seed)
    world.run(560)
    assert {d.action for d in world.decisions} <= {"scale", "shift_traffic", "promote", "hold"}
    assert len(world.did("promote")) == 1


def test_a_version_that_crashes_while_loading_is_rolled_back(simulation: Make) -> None:
    world = simulation()
    world.run(40)
    world.actuator.crashing.add(2)
    world.release(2)
    assert world.run(30, until=lambda: bool(world.did("rollback"))) <= 8
    assert "exited with 1" in world.did("rollback")[0].reason


def test_a_version_that_never_gets_ready_is_rolled_back(simulation: Make) -> None:
    world = simulation()
    world.run(40)
    world.actuator.start_seconds = 1e9
    world.release(2)
    assert 60 <= world.run(90, until=lambda: bool(world.did("rollback"))) <= 63


def test_a_rolled_back_version_needs_a_newer_spec(simulation: Make, behaviour: Any) -> None:
    world = released(simulation, 1, behaviour(failing=1.0))
    world.run(40)
    world.pending_specs.append(world.spec)  # the same release once more
    world.run(10)
    assert len(world.did("rollback")) == 1 and world.memory.rollout.phase is Phase.IDLE
    world.release(2, behaviour())
    world.run(60, until=lambda: bool(world.did("promote")))
    assert world.did("promote")


def test_an_old_finding_does_not_condemn_a_new_try(simulation: Make, behaviour: Any) -> None:
    world = released(simulation, 1, behaviour(failing=1.0))
    world.run(10)
    world.find(kind="version_regression", version=2, id="old")
    world.run(30)
    assert world.did("rollback")
    world.release(2, behaviour())
    world.run(60, until=lambda: bool(world.did("promote")))
    assert world.did("promote")


def test_the_owner_takes_a_release_back(simulation: Make) -> None:
    world = released(simulation, 1)
    world.run(8)
    world.release(1)
    world.run(5)
    assert world.memory.rollout.stable == 1 and world.memory.rollout.phase is Phase.IDLE
    assert "asks for version 1 again" in world.did("rollback")[0].reason
    world.release(2)  # and may release it again
    world.run(60, until=lambda: bool(world.did("promote")))
    world.release(1)  # during the guard: back at once
    world.tick()
    assert world.memory.rollout.stable == 1
    assert {pool.version: pool.weight for pool in world.memory.plan.pools} == {1: 100}


def test_a_newer_release_in_the_canary_and_in_the_guard(simulation: Make) -> None:
    world = released(simulation, 1)
    world.run(8)
    world.release(3)
    world.run(60, until=lambda: bool(world.did("promote")))
    assert world.memory.rollout.stable == 3
    world.release(4)
    world.tick()
    assert {pool.version: pool.weight for pool in world.memory.plan.pools} == {3: 100, 4: 0}


def test_findings_about_quality_roll_back(simulation: Make) -> None:
    world = released(simulation, 1)
    world.run(9)
    world.find(kind="quality_shift", version=2, confidence=0.5, id="weak")
    world.tick()
    assert not world.did("rollback") and any("the comparison decides" in d.reason for d in world.did("hold"))
    world.find(kind="quality_shift", version=2, confidence=0.9, id="strong")
    world.tick()
    assert world.did("rollback")[0].because == ["strong"]


def test_an_autoscaler_without_its_memory_takes_over_what_runs(simulation: Make) -> None:
    world = released(simulation, 1)
    world.run(9)
    world.memory = type(world.memory)()
    world.pending_specs = [world.spec]
    world.run(60, until=lambda: bool(world.did("promote")))
    assert world.memory.rollout.stable == 2


def test_a_canary_beside_an_oversized_pool_gets_as_many_replicas_per_request(simulation: Make) -> None:
    world = simulation(rate=80.0)
    world.run(40)
    world.rate = 20.0
    world.run(10)
    assert world.memory.size == 4  # the window of scaling down has not passed
    world.release(2)
    world.run(60, until=lambda: bool(world.did("promote")))
    pools = {pool.version: pool.replicas for pool in world.memory.plan.pools}
    assert pools[2] == 2 and sum(pools.values()) <= 6


def test_a_fleet_of_one_replica_rolls_out_as_well(simulation: Make, behaviour: Any) -> None:
    world = simulation(rate=15.0)
    world.change(min_replicas=1)
    world.run(40)
    world.release(2)
    assert world.run(60, until=lambda: bool(world.did("promote"))) <= 45
    world.release(3, behaviour(latency_ms=220))
    assert world.run(60, until=lambda: bool(world.did("rollback"))) <= 20


def test_the_owner_promotes_a_version_on_trial_without_waiting_for_the_comparison(simulation: Make) -> None:
    settings = AutoscaleSettings(min_requests=10_000)
    sim = simulation(settings=settings)
    sim.run(20)
    sim.release(2)
    sim.run(30)
    assert sim.memory.rollout.candidate == 2 and not sim.did("promote")
    sim.change(promote=2)
    sim.run(15)
    (promoted,) = sim.did("promote")
    assert "the owner promotes" in promoted.reason and sim.memory.rollout.stable == 2


def test_quarantine_that_is_switched_off_is_said_and_not_done(simulation: Make) -> None:
    sim = simulation(settings=AutoscaleSettings(quarantines_per_window=0))
    sim.run(20)
    sim.find(kind="replica_fault", target=sim.names(1)[0], id="q1")
    sim.run(5)
    assert not sim.did("quarantine")
    assert any("switched quarantine off" in decision.reason for decision in sim.did("hold"))

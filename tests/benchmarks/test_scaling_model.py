"""The queueing model against what queueing theory says, and what is measured of a run."""

from __future__ import annotations

import random

import pytest

from benchmarks.scaling import play
from benchmarks.scaling.controllers import entries
from benchmarks.scaling.fleet import SERVICE_SECONDS, STEP_SECONDS, Answer, Fault, Fleet, Signals
from benchmarks.scaling.play import Run
from serving_stack.traffic.plan import Surge


def poisson(fleet: Fleet, rate: float, until: float, seed: int = 1) -> list[Signals]:
    rng = random.Random(seed)
    at, seen = fleet.now + rng.expovariate(rate), []
    while fleet.now < until:
        arrivals = []
        while at < fleet.now + STEP_SECONDS:
            arrivals.append(at)
            at += rng.expovariate(rate)
        seen.append(fleet.step(arrivals))
    return seen


def test_waits_are_those_of_a_single_server_queue() -> None:
    """Pollaczek-Khinchine: mean wait = rate * E[S^2] / (2 (1 - load)); S is uniform, 20 % around its mean."""
    fleet, rate = Fleet(random.Random(2), 0.0, 1, 0.0), 28.0
    poisson(fleet, rate, 4000.0)
    square = SERVICE_SECONDS**2 * (1 + 0.2**2 / 3)
    expected = SERVICE_SECONDS + rate * square / (2 * (1 - rate * SERVICE_SECONDS))
    latencies = [a.latency for a in fleet.answers if a.latency is not None]
    assert sum(latencies) / len(latencies) == pytest.approx(expected, rel=0.05)


def test_signals_add_up() -> None:
    """Little's law holds to the end, and work is what was worked."""
    fleet = Fleet(random.Random(3), 0.0, 3, 0.0)
    seen = poisson(fleet, 60.0, 200.0)
    while fleet.now < 210.0:
        seen.append(fleet.step([]))
    latencies = [a.latency for a in fleet.answers if a.latency is not None]
    assert len(latencies) == sum(s.arrivals for s in seen) == sum(s.tries for s in seen)
    assert sum(s.in_flight for s in seen) == pytest.approx(sum(latencies))
    assert sum(s.busy for s in seen) == pytest.approx(len(latencies) * SERVICE_SECONDS, rel=0.01)
    assert sum(s.serving for s in seen) == pytest.approx(3 * 210.0)
    assert not fleet.waiting


def test_the_declared_capacity_is_within_the_slo() -> None:
    fleet = Fleet(random.Random(4), 0.0, 1, 0.0)
    poisson(fleet, 30.0, 1000.0)
    latencies = sorted(a.latency for a in fleet.answers if a.latency is not None)
    assert latencies[int(0.99 * len(latencies))] < play.SLO_SECONDS


def test_replicas_need_time_to_start_and_the_newest_goes_first() -> None:
    fleet = Fleet(random.Random(5), 0.0, 1, 4.0)
    fleet.want(3)
    assert [fleet.step([]).ready for _ in range(9)] == [1] * 8 + [3]
    fleet.want(4)
    fleet.want(2)
    signals = fleet.step([])
    assert (signals.ready, signals.replicas) == (2, 2)


def test_a_slow_replica_is_slow_while_its_fault_lasts() -> None:
    fleet = Fleet(random.Random(6), 0.0, 1, 0.0, Fault(10.0, 5.0, slower_by=0.3))
    for _ in range(40):
        fleet.step([fleet.now])
    for answer in fleet.answers:
        assert answer.latency is not None
        assert (answer.latency > 0.3) == (10.0 <= answer.sent < 15.0)


def test_failed_tries_are_tried_again_and_count_as_tries_not_as_arrivals() -> None:
    fleet = Fleet(random.Random(7), 0.0, 1, 0.0, Fault(0.0, 500.0, fails=0.5))
    seen = poisson(fleet, 10.0, 400.0)
    assert sum(s.tries for s in seen) == pytest.approx(2 * sum(s.arrivals for s in seen), rel=0.1)
    assert all(answer.latency is not None for answer in fleet.answers)


def test_a_request_that_always_fails_ends_as_failed() -> None:
    fleet = Fleet(random.Random(8), 0.0, 1, 0.0, Fault(0.0, 100.0, fails=1.0))
    fleet.step([0.1])
    while not fleet.answers and fleet.now < 10:
        fleet.step([])
    assert fleet.answers == [Answer(0.1, None)]
    assert fleet.step([]).in_flight == 0


def test_measures_of_a_run() -> None:
    answers = [Answer(t / 10, 0.3 if 20 <= t < 30 else 0.01) for t in range(150)]
    run = Run(wanted=[2] * 10 + [4] * 20, ready=[2] * 20 + [4] * 10, answers=answers, unanswered=[14.9])
    assert play.violating_seconds(run, 15.0) == 10.0
    assert play.slow_ratio(run) == pytest.approx(11 / 151)
    assert play.replica_seconds(run) == (2 * 10 + 4 * 20) / 2
    surge = Surge(at=4.0, factor=2.5, lasts=8.0)
    assert play.reaction_seconds(run, surge) == 1.5
    assert play.enough_seconds(run, surge) == 6.5
    assert play.reaction_seconds(run, Surge(at=6.0, factor=2.5, lasts=2.0)) is None
    calm = run._replace(wanted=[2] * 12 + [3] * 18)
    assert play.added_for(run, calm, Fault(2.0, 3.0)) == 2


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.key)
def test_every_controller_answers_a_lasting_surge_and_a_run_repeats(entry: object) -> None:
    from benchmarks.scaling.controllers import Entry

    assert isinstance(entry, Entry)
    situation = play.Situation("s", "a surge", 150.0, surge=Surge(at=10.0, factor=4, lasts=140.0))
    first, again = (
        play.play(situation, entry.make(-play.LEAD_SECONDS, random.Random("x")), seed=1, start_seconds=5.0) for _ in range(2)
    )
    assert max(first.wanted) >= 6
    assert first.wanted == again.wanted and first.answers == again.answers

"""From statistics to scores: honest with few ticks, calm on what is normal, and going on with it."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.calibration import KEPT, WAIT_TICKS, Calibration, Recalibration


@pytest.mark.parametrize("n", [20, 50, 400])
@pytest.mark.parametrize("draw", ["exponential", "gumbel", "gamma"])
def test_one_normal_tick_in_a_hundred_scores_over_99_percent(n: int, draw: str) -> None:
    rng = np.random.default_rng(5)

    def sample(size: int) -> np.ndarray:
        return rng.gamma(4.0, size=size) if draw == "gamma" else np.asarray(getattr(rng, draw)(size=size))

    scores = np.concatenate([Calibration.fit(sample(n)).score(sample(100)) for _ in range(300)])
    assert 0.002 < np.mean(scores > 0.99) < 0.015
    assert 0.03 < np.mean(scores > 0.95) < 0.07
    assert np.median(scores) == pytest.approx(0.5, abs=0.03)


def test_few_ticks_never_make_sure_of_what_many_would() -> None:
    rng = np.random.default_rng(0)
    few, many = (Calibration.fit(rng.exponential(size=n)) for n in (30, 600))
    assert few.score(np.array([8.0]))[0] < many.score(np.array([8.0]))[0]
    assert few.score(np.array([1e6]))[0] > 0.999


def test_larger_is_never_less_unusual_and_unknown_stays_unknown() -> None:
    calibration = Calibration.fit(np.array([1.0, 1.0, 2.0, 2.5, 3.0, np.nan]))
    scores = calibration.score(np.array([-1.0, 1.0, 2.2, 2.9, 3.1, 9.0, np.nan]))
    assert (np.diff(scores[:-1]) >= 0).all() and np.isnan(scores[-1])
    assert ((scores[:-1] >= 0) & (scores[:-1] < 1)).all()


@pytest.mark.parametrize("sample", [[], [1.0], [2.0, 2.0, 2.0]])
def test_a_sample_of_next_to_nothing_breaks_nothing(sample: list[float]) -> None:
    scores = Calibration.fit(np.array(sample)).score(np.array([1.0, 3.0]))
    assert np.isnan(scores).all() if not sample else np.isfinite(scores).all()


def after(ticks: int, suspects: set[str]) -> float:
    """The score of 5, which a replica shows all the time, where training knew only 0 to 1."""
    rng = np.random.default_rng(1)
    running = Recalibration(Calibration.fit(rng.uniform(0, 1, 50)))
    for _ in range(ticks):
        running.score(["a"], np.array([5.0 + rng.normal(0, 0.1)]))
        running.settle(suspects)
    return float(running.score(["a"], np.array([5.0]))[0])


def test_a_new_level_without_a_finding_becomes_normal_but_not_at_once() -> None:
    assert after(WAIT_TICKS, set()) > 0.995
    assert after(WAIT_TICKS + 30, set()) < 0.95


def test_what_led_to_a_finding_is_not_learned() -> None:
    assert after(60, {"a"}) == after(0, set())
    assert after(60, {"b"}) == after(60, set())


def test_memory_is_bounded_and_survives_a_restart() -> None:
    running = Recalibration(Calibration.fit(np.arange(10.0)))
    for tick in range(KEPT):
        running.score(["a", "b"], np.array([float(tick), np.nan if tick % 7 else 1.0]))
        running.settle(set())
    state = running.dump()
    assert len(state["sample"]) == KEPT and len(state["waiting"]) == WAIT_TICKS
    again = Recalibration(Calibration([]))
    again.restore(state)
    wanted = np.linspace(0, 900, 7)
    assert (again.score(list("abcdefg"), wanted) == running.score(list("abcdefg"), wanted)).all()

"""The always-valid tests: false alarms under continuous peeking, power, and what blocks are worth."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.sequential import BOUND_GRID, Block, BoundTest, HarmTest, Rate, log_e_value

RATES = st.floats(0.0, 1.0)


def binomial(rng: random.Random, n: int, p: float) -> int:
    return sum(rng.random() < p for _ in range(n))


def requests_until_harm(
    rng: random.Random, p_a: float, p_b: float, margin: float, alpha: float, ticks: int, n: tuple[int, int] = (16, 4)
) -> float:
    test, seen = HarmTest(margin, Rate(p_a * 100, 100)), 0
    for _ in range(ticks):
        test = test.observe(Block(binomial(rng, n[0], p_a), n[0], binomial(rng, n[1], p_b), n[1]))
        seen += n[1]
        if test.found(alpha):
            return seen
    return math.inf


@pytest.mark.parametrize(("p", "margin"), [(0.02, 0.0), (0.07, 0.02), (0.3, 0.1)])
def test_false_alarms_stay_under_alpha_with_a_look_at_every_tick(p: float, margin: float) -> None:
    rng, alpha, runs = random.Random(1), 0.1, 100
    # At the border of the null, where false alarms are most frequent.
    alarms = sum(requests_until_harm(rng, p, p + margin, margin, alpha, 60) < math.inf for _ in range(runs))
    assert alarms / runs <= alpha


def test_drifting_rates_raise_no_alarm_as_long_as_both_drift() -> None:
    rng, alarms = random.Random(2), 0
    for _ in range(80):
        test = HarmTest(0.0)
        for tick in range(80):
            p = 0.05 + 0.4 * (tick % 20 > 10)
            test = test.observe(Block(binomial(rng, 10, p), 10, binomial(rng, 10, p), 10))
        alarms += test.found(0.1)
    assert alarms / 80 <= 0.1


def test_the_bound_covers_the_true_difference_at_all_times() -> None:
    rng, alpha, missed = random.Random(3), 0.1, 0
    for _ in range(40):
        test = BoundTest()
        for _ in range(30):
            test = test.observe(Block(binomial(rng, 10, 0.1), 10, binomial(rng, 10, 0.25), 10))
        missed += test.upper(alpha) < 0.15
    assert missed / 40 <= alpha


def test_an_all_slow_version_is_found_within_fifteen_requests() -> None:
    rng = random.Random(4)
    found = sorted(requests_until_harm(rng, 0.03, 1.0, 0.1, 0.01 / 3, 60) for _ in range(50))
    assert found[25] <= 12 and found[-1] <= 16


def test_a_third_of_wrong_answers_is_found_within_sixty_requests() -> None:
    rng = random.Random(5)
    found = sorted(requests_until_harm(rng, 0.07, 0.30, 0.02, 0.01, 100) for _ in range(60))
    assert found[30] <= 60


def test_harm_that_begins_late_is_found_as_well() -> None:
    rng, test = random.Random(6), HarmTest(0.1)
    for _ in range(100):
        test = test.observe(Block(binomial(rng, 10, 0.03), 10, binomial(rng, 10, 0.03), 10))
    assert not test.found(0.01)
    late = 0
    while not test.found(0.01) and late < 10:
        test = test.observe(Block(0, 10, 10, 10))
        late += 1
    assert late <= 3


def test_no_worse_is_shown_and_worse_is_not() -> None:
    rng, good, bad = random.Random(7), BoundTest(), BoundTest()
    for _ in range(40):
        a = binomial(rng, 10, 0.05)
        good = good.observe(Block(a, 10, binomial(rng, 10, 0.05), 10))
        bad = bad.observe(Block(a, 10, binomial(rng, 10, 0.35), 10))
    assert good.upper(0.05) <= 0.1
    assert bad.upper(0.05) >= 0.3


def test_a_clump_counts_for_no_more_than_its_cap() -> None:
    free, capped = HarmTest(0.1).observe(Block(0, 16, 4, 4)), HarmTest(0.1).observe(Block(0, 16, 4, 4), cap=1.0)
    assert 0 < capped.best < free.best
    stalled = HarmTest(0.1, Rate(3, 100)).observe(Block(0, 50, 50, 50), cap=2.0)
    assert not stalled.found(0.01)


@given(
    p_a=RATES, p_b=RATES, difference=st.sampled_from(BOUND_GRID), q=RATES, harm=st.booleans(),
    n_a=st.integers(1, 3), n_b=st.integers(1, 3),
)  # fmt: skip
def test_a_block_is_worth_at_most_one_for_every_point_of_the_null(
    p_a: float, p_b: float, difference: float, q: float, harm: bool, n_a: int, n_b: int
) -> None:
    q_a = q * (1 - difference)
    q_b = q_a + difference
    expected = 0.0
    for x, y in itertools.product(range(n_a + 1), range(n_b + 1)):
        chance = math.comb(n_a, x) * q_a**x * (1 - q_a) ** (n_a - x) * math.comb(n_b, y) * q_b**y * (1 - q_b) ** (n_b - y)
        expected += chance * math.exp(log_e_value(Block(x, n_a, y, n_b), p_a, p_b, difference, harm=harm))
    assert expected <= 1 + 1e-6

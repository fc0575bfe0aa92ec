"""The parts of tuning that decide the result, without training for long."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_stack.banking import digest, hold_out, intents, questions
from serving_stack.intervals import wilson
from serving_stack.recipe import Recipe, average_at, batches, chosen, factor_at, share


def test_the_data_is_whole():
    assert len(questions("train")) == 10003
    assert len(questions("test")) == 3080
    assert len(intents()) == 77
    assert {q.intent for q in questions("train")} == {q.intent for q in questions("test")} == set(intents())
    assert all(q.text for q in questions("test"))
    assert len(digest()) == 64


def test_validation_is_held_out_of_each_intent_and_repeatable():
    kept, held = hold_out(questions("train"), 0.1, seed=7)
    assert len(kept) + len(held) == 10003
    assert {q.intent for q in held} == set(intents())
    assert (kept, held) == hold_out(questions("train"), 0.1, seed=7)
    assert held != hold_out(questions("train"), 0.1, seed=8)[1]


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_wilson_encloses_the_ratio(right, total):
    right = min(right, total)
    low, high = wilson(right, total)
    assert 0 <= low <= right / total + 1e-12
    assert right / total - 1e-12 <= high <= 1


def test_wilson_known_value():
    low, high = wilson(81, 263)  # Brown, Cai, DasGupta 2001's formula, worked by hand
    assert math.isclose(low, 0.2553, abs_tol=2e-4)
    assert math.isclose(high, 0.3662, abs_tol=2e-4)
    with pytest.raises(ValueError, match="is no ratio"):
        wilson(1, 0)


def test_every_question_is_in_one_batch():
    lengths = [random.Random(1).randint(3, 60) for _ in range(5000)]
    plan = batches(lengths, 32, random.Random(2))
    assert sorted(i for rows in plan for i in rows) == list(range(5000))
    spread = [max(lengths[i] for i in rows) - min(lengths[i] for i in rows) for rows in plan]
    assert sorted(spread)[len(spread) // 2] <= 3, "alike lengths are together"


def test_the_rate_rises_then_falls_to_zero():
    recipe = Recipe(warm_up=0.1)
    rates = [factor_at(step, 100, recipe) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.02


def test_versions_are_half_way_and_best_after_it():
    history = [{"epoch": e, "validation": v} for e, v in enumerate([0.5, 0.95, 0.8, 0.9, 0.9, 0.89], start=1)]
    assert chosen(history) == (3, 5)
    assert chosen(history[:1]) == (1, 1)


def test_without_validation_the_last_epoch_is_version_2():
    assert chosen([{"epoch": e, "validation": math.nan} for e in (1, 2, 3, 4)]) == (2, 4)


@given(st.integers(1, 40), st.integers(1, 8))
def test_the_shares_of_all_processes_weigh_every_question_alike(count, processes):
    rows = list(range(100, 100 + count))
    weight = dict.fromkeys(rows, 0.0)
    for process in range(processes):
        mine, factor = share(rows, process, processes)
        assert mine, "nobody is without a row"
        for row in mine:
            weight[row] += factor / len(mine) / processes
    assert list(weight.values()) == pytest.approx([1 / count] * count)


def test_the_average_forgets_the_beginning_first():
    recipe = Recipe(average=0.998)
    assert average_at(0, recipe) == pytest.approx(0.1)
    assert average_at(10_000, recipe) == 0.998

"""Workloads and bounds of the benchmark of adapters."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from benchmarks.adapters.play import clairvoyant, play
from benchmarks.adapters.policies import Lfu, Lru
from benchmarks.adapters.tiny_lfu import TinyLfu
from benchmarks.adapters.workloads import ADAPTERS, WORKLOADS, drawn
from serving_stack.edge_model.trend import Trend


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_repeats_with_its_seed_and_is_skewed(name: str) -> None:
    asked = WORKLOADS[name](3000, 4)
    assert asked == WORKLOADS[name](3000, 4) != WORKLOADS[name](3000, 5)
    assert abs(len(asked) - 3000) < 300
    counts = Counter(asked)
    assert 100 < len(counts) <= ADAPTERS
    assert sum(n for _, n in counts.most_common(50)) > 0.3 * len(asked)


def test_drift_moves_what_is_popular() -> None:
    def popular(drift: float) -> int:
        asked = drawn(20_000, 1, drift)
        first, last = (Counter(part).most_common(20) for part in (asked[:5000], asked[-5000:]))
        return len({key for key, _ in first} & {key for key, _ in last})

    assert popular(0.0) >= 15 > popular(0.05)


@pytest.mark.parametrize("places", [1, 2, 3])
def test_the_clairvoyant_bound_is_the_best_that_any_choice_could_do(places: int) -> None:
    chance = random.Random(places)

    def best(asked: list[str], held: frozenset[str]) -> int:
        if not asked:
            return 0
        key, rest = asked[0], asked[1:]
        if key in held:
            return 1 + best(rest, held)
        choices = {held}
        for size in range(places):
            choices |= {frozenset(some) | {key} for some in itertools.combinations(held, size)}
        return max(best(rest, each) for each in choices)

    for _ in range(30):
        asked = chance.choices("abcd", k=9)
        assert round(clairvoyant(asked, places).hit_ratio * len(asked)) == best(asked, frozenset())


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_policy_has_more_hits_than_the_bound_and_the_served_one_is_near_the_best(name: str) -> None:
    asked = WORKLOADS[name](4000, 2)
    bound = clairvoyant(asked, 50).hit_ratio
    others = {kind.__name__: play(kind(50), asked).hit_ratio for kind in (Lru, Lfu, TinyLfu)}
    served = play(Trend(50), asked)
    assert all(each <= bound for each in (*others.values(), served.hit_ratio))
    assert served.hit_ratio >= max(others.values()) - 0.02
    assert served.moved >= (1 - served.hit_ratio) * len(asked) - 0.5

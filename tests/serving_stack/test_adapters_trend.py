"""The policy that keeps adapters by how often they will be asked for."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.adapters.policies import Lfu, Lru, Policy
from benchmarks.adapters.tiny_lfu import TinyLfu
from serving_stack.edge_model.trend import VIEWS, Trend


def played(policy: Policy, keys: list[str], size: int = 1) -> float:
    """The hit ratio when each miss is offered."""
    hits = 0
    for key in keys:
        hit = policy.ask(key)
        assert hit == (key in policy)
        hits += hit
        if not hit:
            policy.put(key, size)
    return hits / len(keys)


def test_each_view_is_a_share_of_the_same_counts() -> None:
    assert np.allclose(VIEWS.sum(1), 1) and (VIEWS >= 0).all()


def test_a_newcomer_does_not_push_out_what_is_asked_for_more_often() -> None:
    trend = Trend(20)
    for _ in range(30):
        for key in ("a", "b"):
            if not trend.ask(key):
                trend.put(key, 10)
    assert not trend.ask("rare")
    assert trend.put("rare", 10) is None
    assert "a" in trend and "b" in trend and "rare" not in trend and trend.held == 20


def test_what_becomes_popular_gets_the_place_of_what_was() -> None:
    trend = Trend(20)
    played(trend, ["a", "b"] * 200, 10)
    played(trend, ["c", "b"] * 200, 10)
    assert "c" in trend and "b" in trend and "a" not in trend


def test_worth_counts_by_byte() -> None:
    trend = Trend(100)
    for _ in range(50):
        for key, size in (("large", 90), ("small1", 30), ("small2", 30), ("small3", 30)):
            if not trend.ask(key):
                trend.put(key, size)
    assert "large" not in trend and all(f"small{n}" in trend for n in (1, 2, 3))


def test_what_is_larger_than_everything_is_refused() -> None:
    trend = Trend(10)
    trend.ask("huge")
    assert trend.put("huge", 11) is None
    trend.ask("fits")
    assert trend.put("fits", 10) == []


def test_wanted_are_those_that_are_worth_more_than_the_least_held() -> None:
    trend = Trend(20)
    assert trend.wanted() == []
    played(trend, ["a", "b"] * 20, 10)
    for _ in range(100):  # it was loaded once, and could not be had since
        trend.ask("c")
    trend.put("c", 10)
    played(trend, ["a"] * 100, 10)
    assert "b" not in trend and trend.wanted() == []
    for _ in range(400):
        trend.ask("b")
    assert trend.wanted() == ["b"]
    assert trend.put("b", 10) is not None


def test_shares_are_those_of_the_requests_and_survive_a_long_run() -> None:
    trend = Trend(20)
    chance = random.Random(3)
    for _ in range(20_000):  # far beyond what fits an exponent
        key = "often" if chance.random() < 0.8 else "seldom"
        if not trend.ask(key):
            trend.put(key, 10)
    shares = dict(trend.shares())
    assert 0.6 < shares["often"] < 0.95 and 0.05 < shares["seldom"] < 0.4
    assert [name for name, _ in trend.shares()] == ["often", "seldom"]


def test_it_finds_out_how_fast_popularity_drifts() -> None:
    """Sessions: believe the last moments. A popularity that stands still: believe the long run. Near the best of the others."""
    chance = random.Random(7)
    weights = [1 / (rank + 1) ** 0.9 for rank in range(200)]
    names = [f"adapter{n}" for n in range(200)]
    still = chance.choices(names, weights, k=8000)
    sessions = [name for name in chance.choices(names, k=1000) for _ in range(8)]
    trend = Trend(20)
    held, lru = played(trend, still), played(Lru(20), still)
    assert held > lru + 0.05 and trend.view >= 3
    trend = Trend(20)
    assert played(trend, sessions) > 0.86


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 40)), max_size=80),
    st.integers(1, 60),
    st.sampled_from([Trend, Lru, Lfu, TinyLfu]),
)
def test_no_policy_ever_holds_too_much_or_loses_count(
    asked: list[tuple[str, int]], limit: int, kind: type[Trend] | type[Lru] | type[Lfu] | type[TinyLfu]
) -> None:
    policy: Policy = kind(limit)
    sizes: dict[str, int] = {}
    held: set[str] = set()
    for key, size in asked:
        size = sizes.setdefault(key, size)
        assert policy.ask(key) == (key in held)
        if key in held:
            continue
        gone = policy.put(key, size)
        if gone is not None:
            assert set(gone) <= held
            held = held - set(gone) | {key}
        assert held == {each for each in sizes if each in policy}
        assert policy.held == sum(sizes[each] for each in held) <= limit

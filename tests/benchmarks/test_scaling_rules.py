"""The rules that Trimtab is compared with, checked against the worked examples of their own documentation and source."""

from __future__ import annotations

from itertools import pairwise

import pytest

from benchmarks.scaling.hpa import Hpa, Policy, by_average, by_total
from benchmarks.scaling.knative import PANIC_THRESHOLD, STABLE_SECONDS, Kpa


def test_hpa_doubles_at_twice_the_target_and_halves_at_half_of_it() -> None:
    """Algorithm details: 200m against 100m doubles the replicas, 50m halves them."""
    assert by_average(4, 4, 200, 100) == 8
    assert by_average(4, 4, 50, 100) == 2
    assert by_total(4, 800, 100) == 8
    assert by_total(4, 200, 100) == 2


def test_hpa_scales_50_replicas_at_90_percent_of_a_75_percent_target_to_60() -> None:
    """The example of the Kubernetes blog on configurable tolerance."""
    assert by_average(50, 50, 90, 75) == 60


@pytest.mark.parametrize(("value", "wanted"), [(90, 10), (110, 10), (111, 12), (100, 10), (89, 9)])
def test_hpa_does_nothing_within_a_tenth_of_the_target(value: float, wanted: int) -> None:
    assert by_average(10, 10, value, 100) == wanted
    assert by_total(10, 10 * value, 100) == wanted


def test_hpa_takes_pods_that_are_not_ready_to_use_nothing_when_it_scales_up() -> None:
    assert by_average(4, 4, 150, 100) == 6
    assert by_average(4, 3, 150, 100) == 5  # 450 over four pods: 1.125 times the target
    assert by_average(4, 2, 150, 100) == 4  # 300 over four pods would turn the direction round
    assert by_average(4, 0, 0, 100) == 4


def test_hpa_adds_at_most_four_pods_or_doubles_whichever_is_more_in_15_seconds() -> None:
    """Default behavior."""
    hpa = Hpa(1, 100)
    assert hpa.decide(0, 1, 50) == 5
    assert hpa.decide(5, 5, 50) == 5  # the period is not over
    assert hpa.decide(15, 5, 50) == 10
    assert hpa.decide(30, 10, 50) == 20
    assert hpa.decide(45, 20, 200) == 40
    assert hpa.decide(60, 40, 200) == 80
    assert hpa.decide(75, 80, 200) == 100


def test_hpa_removes_8_of_80_then_8_of_72_and_4_at_a_time_below_40() -> None:
    """Scaling policies: 4 pods or 10 % a minute, the larger of both, from 80 towards 10."""
    hpa = Hpa(1, 100, down=(Policy("pods", 4, 60), Policy("percent", 10, 60)), down_window=0)
    seen, current = [], 80
    for minute in range(20):
        current = hpa.decide(60.0 * minute, current, 10)
        seen.append(current)
    assert seen[:3] == [72, 64, 57]
    below = [count for count in seen if count <= 40]
    assert {a - b for a, b in pairwise(below) if b > 10} == {4}
    assert seen[-1] == 10


def test_hpa_goes_down_only_to_the_highest_recommendation_of_five_minutes() -> None:
    """Stabilization window."""
    hpa = Hpa(1, 100)
    assert hpa.decide(0, 10, 10) == 10
    assert hpa.decide(15, 10, 2) == 10
    assert hpa.decide(285, 10, 6) == 10
    assert hpa.decide(300, 10, 3) == 6
    assert hpa.decide(600, 6, 3) == 3


def test_hpa_keeps_to_its_bounds() -> None:
    assert Hpa(2, 5).decide(0, 4, 50) == 5
    assert Hpa(2, 5, down_window=0).decide(0, 4, 0) == 2


def test_kpa_takes_the_stable_mean_over_the_target() -> None:
    """Knative's overview: 100 concurrent requests at a target of 7 (70 % of 10) need 15 pods."""
    assert Kpa(7, 1, 100).decide(0, 10, 100, 100) == 15


def test_kpa_panics_at_twice_the_ready_pods_and_does_not_go_down_until_a_stable_window_is_over() -> None:
    kpa = Kpa(10, 1, 100)
    assert kpa.decide(0, 2, 20, 29) == 2 and kpa.panicking_since is None  # 3 pods by the panic window, not twice the ready 2
    assert kpa.decide(2, 2, 20, 10 * 2 * PANIC_THRESHOLD) == 4
    assert kpa.decide(4, 2, 20, 10) == 4
    assert kpa.decide(2 + STABLE_SECONDS, 4, 10, 10) == 4
    assert kpa.decide(4 + STABLE_SECONDS, 4, 10, 10) == 2  # at most halved at once
    assert kpa.panicking_since is None


def test_kpa_goes_down_by_half_at_the_most_and_to_its_bounds() -> None:
    assert Kpa(10, 1, 100).decide(0, 10, 10, 10) == 5
    assert Kpa(10, 3, 8).decide(0, 4, 10, 10) == 3
    assert Kpa(10, 1, 8).decide(0, 4, 200, 200) == 8

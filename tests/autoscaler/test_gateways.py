"""Several gateway targets read as one: sums per round, restarts are unknown and a mute one holds up nobody."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler import demand
from autoscaler.gateways import Merged, merge
from autoscaler.settings import AutoscaleSettings
from trimtab.messages import Snapshot

KEY = 'envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="ns_intent"}'


def page(target: str, time: float, count: float | None, uptime: float | None = None, error: str | None = None) -> Snapshot:
    series: dict[str, float | None] = (
        {} if count is None else {KEY: count, "envoy_server_uptime": time if uptime is None else uptime}
    )
    return Snapshot(
        target=target, fleet="ns_intent", role="gateway", time=time, took=0.01, up=count is not None, series=series, error=error
    )


def play(*pages: Snapshot) -> list[Snapshot]:
    memory, seen = Merged(), []
    for each in pages:
        memory, together = merge(memory, each, 3.0)
        seen += [together] if together else []
    return seen


def test_a_single_target_passes_through_untouched() -> None:
    pages = [page("gateway", t, t * 10) for t in (1.0, 2.0, 3.0)] + [page("gateway", 4.0, None), page("gateway", 5.0, 3)]
    assert play(*pages) == pages


def test_two_targets_give_one_page_a_round_with_the_sum() -> None:
    pages = [page(name, t + phase, 100 + t * rate) for t in range(1, 6) for name, phase, rate in (("a", 0.0, 10), ("b", 0.5, 30))]
    seen = play(*pages)
    values = [each.series[KEY] for each in seen if each.target == "gateway"]
    assert len(values) == 4  # the first page of a passed through, the first of b only says where it begins
    assert [b - a for a, b in itertools.pairwise(values)] == [40, 40, 40]  # type: ignore[operator]


def test_demand_over_three_gateways_is_their_sum() -> None:
    memory, seen = Merged(), demand.DemandMemory()
    for t in range(1, 25):
        for index, rate in enumerate((5, 20, 75)):
            memory, together = merge(memory, page(f"g{index}", t + index / 10, 1000 * index + t * rate), 3.0)
            seen = demand.observe(seen, together) if together else seen
    estimate = demand.estimate(seen, AutoscaleSettings())
    assert estimate.steady == pytest.approx(100, rel=0.01)


def test_a_restarted_target_makes_the_interval_unknown() -> None:
    memory, seen = Merged(), demand.DemandMemory()
    counts = {"a": [100.0, 110, 120, 130, 140], "b": [1000.0, 1010, 4, 14, 24]}
    for index in range(5):
        for name, phase in (("a", 0.0), ("b", 0.4)):
            memory, together = merge(memory, page(name, index + phase, counts[name][index]), 3.0)
            seen = demand.observe(seen, together) if together else seen
    rates = [interval.count / interval.seconds for interval in seen.intervals]
    assert all(rate <= 20.5 for rate in rates) and len(seen.intervals) < 4


def beside(other: list[Snapshot]) -> list[Snapshot]:
    pages = [page("a", float(t), t * 10) for t in range(1, 20)]
    return play(*(each for pair in zip(pages, other, strict=True) for each in pair))


def test_one_that_is_gone_does_not_hold_up_the_others() -> None:
    refusing = [page("b", t + 0.5, 50) if t < 3 else page("b", t + 0.5, None, error="connection refused") for t in range(1, 20)]
    seen = beside(refusing)
    assert seen[-1].time >= 18.0 and len(seen) >= 15


def test_one_that_is_there_and_says_nothing_makes_the_sum_unknown() -> None:
    hanging = [page("b", t + 0.5, 50) if t < 6 else page("b", t + 0.5, None, error="timed out") for t in range(1, 20)]
    frozen = [page("b", t + 0.5, 50, uptime=t if t < 6 else 7) for t in range(1, 20)]
    for other in (hanging, frozen):
        assert beside(other)[-1].time < 9.0
    back = [page("b", t + 0.5, 50 * t) if t < 6 or t > 12 else page("b", t + 0.5, None, error="timed out") for t in range(1, 20)]
    assert beside(back)[-1].time >= 18.0


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 50), st.one_of(st.none(), st.floats(0, 1e6))), min_size=1, max_size=60
    )
)
def test_hostile_orders_and_values_never_break_it(pages: list[tuple[str, float, float | None]]) -> None:
    for each in play(*(page(*one) for one in pages)):
        value = each.series.get(KEY)
        assert value is None or value >= 0


def test_going_back_to_one_target_is_no_surge() -> None:
    both = [page(name, t + phase, base + t) for t in range(1, 6) for name, phase, base in (("a", 0.0, 1000), ("b", 0.5, 9000))]
    later = [page("b", t + 0.5, 9000 + t) for t in range(6, 200)]
    memory, seen = Merged(), demand.DemandMemory()
    for each in both + later:
        memory, together = merge(memory, each, 3.0)
        seen = demand.observe(seen, together) if together else seen
    assert all(interval.count / interval.seconds <= 2.5 for interval in seen.intervals) and seen.seen == 199.5

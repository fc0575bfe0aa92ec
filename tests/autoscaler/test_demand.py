"""Demand: fast to see a surge, calm about bursts, and unknown when it is unknown."""

from __future__ import annotations

import random

import pytest

from autoscaler.demand import DemandMemory, estimate, is_fresh, observe, remember_need, replicas_for, settled_need
from autoscaler.settings import AutoscaleSettings
from trimtab.messages import Snapshot

SETTINGS = AutoscaleSettings()


def gateway(time: float, count: float | None, uptime: float | None = None, up: bool = True, fleet: str = "intent") -> Snapshot:
    series: dict[str, float | None] = {"envoy_server_uptime": time if uptime is None else uptime}
    if count is not None:
        series[f'envoy_http_downstream_rq_total{{envoy_http_conn_manager_prefix="{fleet}"}}'] = count
        series['envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="admin"}'] = (
            1e6 + (series["envoy_server_uptime"] or 0.0) * 100
        )
    return Snapshot(target="gateway", fleet=fleet, role="gateway", time=time, took=0.0, up=up, series=series)


def after(rates: list[float], start: float = 100.0) -> DemandMemory:
    memory, count = DemandMemory(), 5000.0
    memory = observe(memory, gateway(start, count))
    for tick, rate in enumerate(rates, 1):
        count += rate
        memory = observe(memory, gateway(start + tick, count))
    return memory


def test_steady_traffic_is_counted_without_the_admin_listener() -> None:
    demand = estimate(after([20.0] * 30), SETTINGS)
    assert demand.steady == pytest.approx(20.0)
    assert demand.rate == pytest.approx(20.0)


def test_a_fourfold_surge_shows_within_two_ticks() -> None:
    memory = after([20.0] * 30 + [80.0, 80.0])
    rate = estimate(memory, SETTINGS).rate
    assert rate is not None and rate > 60
    assert replicas_for(rate, 30.0, 0.75) >= 3 * replicas_for(20.0, 30.0, 0.75)


def test_bursty_arrivals_do_not_flap() -> None:
    """Arrivals as bursty as recorded conversations (variance twice that of Poisson)."""
    rng = random.Random(1)
    rates = [max(0.0, rng.gauss(20, (2.2 * 20) ** 0.5)) for _ in range(600)]
    memory, needs, count = DemandMemory(), [], 0.0
    for tick, rate in enumerate(rates):
        count += rate
        memory = observe(memory, gateway(float(tick), count))
        demand = estimate(memory, SETTINGS).rate
        if demand is not None and tick > 30:
            needs.append(replicas_for(demand, 30.0, 0.75))
    assert set(needs) <= {1, 2}


def test_nothing_seen_is_unknown_not_zero() -> None:
    assert estimate(DemandMemory(), SETTINGS).rate is None
    assert estimate(after([]), SETTINGS).rate is None


@pytest.mark.parametrize("bad", [gateway(131, None), gateway(131, 9e9, up=False), gateway(90, 0.0), gateway(131, float("nan"))])
def test_a_bad_page_changes_nothing_and_ages(bad: Snapshot) -> None:
    memory = after([20.0] * 30)
    assert observe(memory, bad).intervals == memory.intervals
    assert is_fresh(observe(memory, bad), 132.0, SETTINGS)
    assert not is_fresh(observe(memory, bad), 134.0, SETTINGS)


def test_a_frozen_page_is_not_seen() -> None:
    memory = after([20.0] * 30)
    for tick in range(131, 141):
        memory = observe(memory, gateway(float(tick), 5600.0, uptime=130.0))
    assert not is_fresh(memory, 140.0, SETTINGS)
    assert estimate(memory, SETTINGS).rate == pytest.approx(20.0, rel=0.2)


def test_an_idle_but_living_gateway_is_zero_demand() -> None:
    memory = after([20.0] * 30 + [0.0] * 30)
    assert is_fresh(memory, 160.0, SETTINGS)
    assert estimate(memory, SETTINGS).rate == 0.0


def test_a_restarted_gateway_is_an_unknown_interval_and_no_negative_demand() -> None:
    memory = observe(after([20.0] * 30), gateway(131.0, 3.0))
    assert estimate(memory, SETTINGS).rate == pytest.approx(20.0)
    memory = observe(memory, gateway(132.0, 23.0))
    assert estimate(memory, SETTINGS).rate == pytest.approx(20.0)


def test_shrinking_waits_for_a_whole_known_window() -> None:
    memory = DemandMemory()
    for now in range(0, 119):
        memory = remember_need(memory, float(now), 4 if now < 10 else 2, SETTINGS)
    assert settled_need(memory, 118.0, SETTINGS) is None
    memory = remember_need(memory, 120.0, 2, SETTINGS)
    assert settled_need(memory, 120.0, SETTINGS) == 4
    for now in range(121, 140):
        memory = remember_need(memory, float(now), 2, SETTINGS)
    assert settled_need(memory, 139.0, SETTINGS) == 2
    memory = remember_need(memory, 140.0, None, SETTINGS)
    memory = remember_need(memory, 141.0, 2, SETTINGS)
    assert settled_need(memory, 141.0, SETTINGS) is None


@pytest.mark.parametrize(("demand", "expected"), [(0.0, 1), (22.5, 1), (22.6, 2), (80.0, 4), (90.0, 4)])
def test_replicas_for(demand: float, expected: int) -> None:
    assert replicas_for(demand, 30.0, 0.75) == expected

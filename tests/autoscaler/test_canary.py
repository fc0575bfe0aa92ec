"""The canary's verdict from pages: the bound for slow requests, resets, missing series and clumps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.baseline import Baseline, follow, threshold
from autoscaler.canary import observe, outcomes, start, verdict
from autoscaler.sequential import Rate
from autoscaler.series import VersionCounters, gateway_counters
from autoscaler.settings import AutoscaleSettings
from trimtab.messages import Snapshot

SETTINGS = AutoscaleSettings()


def page(time: float, series: dict[str, float | None], role: str = "gateway", up: bool = True) -> Snapshot:
    return Snapshot(target=role, fleet="intent", role=role, time=time, took=0, up=up, series=series)  # type: ignore[arg-type]


def cluster(
    version: int, ok: float, bad: float = 0.0, fast: float | None = None, retried: float = 0.0
) -> dict[str, float | None]:
    name = f'envoy_cluster_name="intent_v{version}"'
    total = ok + bad
    return {
        f'envoy_cluster_upstream_rq_xx{{{name},envoy_response_code_class="2"}}': ok,
        f'envoy_cluster_upstream_rq_xx{{{name},envoy_response_code_class="5"}}': bad,
        f'envoy_cluster_retry_upstream_rq_xx{{{name},envoy_response_code_class="5"}}': retried,
        f'envoy_cluster_upstream_rq_time_bucket{{{name},le="50"}}': total if fast is None else fast,
        f'envoy_cluster_upstream_rq_time_bucket{{{name},le="+Inf"}}': total,
    }


BASE = Baseline(
    version=1,
    error=Rate(0, 200),
    wrong=Rate(14, 200),
    latency={"10": 20, "25": 150, "50": 196, "100": 199, "500": 200, "+Inf": 200},
)


def test_the_bound_comes_from_the_stable_versions_own_latencies() -> None:
    assert threshold(BASE, 0.25, SETTINGS) == "50"
    assert threshold(BASE, 0.025, SETTINGS) == "25"  # never above the SLO
    assert threshold(Baseline(version=1), 0.25, SETTINGS) is None
    fast = {"0.5": 100, "1": 200, "25": 200, "50": 200, "+Inf": 200}
    assert threshold(Baseline(version=1, latency=fast), 0.25, SETTINGS) == "25"  # never below what anyone notices


def test_a_retried_failure_is_a_failure_of_its_version() -> None:
    counters = gateway_counters(page(1.0, cluster(2, ok=10, bad=1, retried=4)), 2)
    assert (counters.requests, counters.failed) == (15, 5)


def test_unknown_is_unknown_and_a_reset_is_no_negative_count() -> None:
    assert gateway_counters(page(1.0, {}), 2).requests is None
    before, after = VersionCounters(requests=100, failed=5), VersionCounters(requests=10, failed=0)
    assert outcomes("error", before, after, None) is None
    assert outcomes("slow", before, VersionCounters(requests=110, failed=5), "50") is None
    assert outcomes("error", before, VersionCounters(), None) is None


def test_ticks_without_one_of_the_two_do_not_count() -> None:
    memory = start(1, 2, BASE, 0.25, SETTINGS, 0.0)
    memory = observe(memory, page(1.0, cluster(1, 100)), SETTINGS)
    memory = observe(memory, page(2.0, {**cluster(1, 120), **cluster(2, 0)}), SETTINGS)
    memory = observe(memory, page(3.0, {**cluster(1, 120), **cluster(2, 0, bad=30)}), SETTINGS)
    assert memory.streams["error"].canary_total == 0
    memory = observe(memory, page(4.0, {**cluster(1, 140), **cluster(2, 0, bad=35)}), SETTINGS)
    assert memory.streams["error"].canary_bad == 5


def test_failed_and_repeated_pages_change_nothing() -> None:
    memory = observe(start(1, 2, BASE, 0.25, SETTINGS, 0.0), page(1.0, {**cluster(1, 100), **cluster(2, 10)}), SETTINGS)
    assert observe(memory, page(2.0, {}, up=False), SETTINGS) == memory
    assert observe(memory, page(1.0, {**cluster(1, 999), **cluster(2, 0, bad=999)}), SETTINGS) == memory
    assert observe(memory, page(2.0, {}, role="triton"), SETTINGS) == memory


def test_harm_says_what_and_how_often() -> None:
    memory = start(1, 2, BASE, 0.25, SETTINGS, 0.0)
    for tick in range(8):
        pages = {**cluster(1, 100 + 16 * tick), **cluster(2, 4 * tick, fast=0)}
        memory = observe(memory, page(1.0 + tick, pages), SETTINGS)
    seen = verdict(memory, 8.0, SETTINGS)
    assert seen.kind == "harm"
    assert "slow requests (over 50 ms): 28 of 28 in version 2, 0 of 112 in version 1" in seen.reason


def test_one_stall_of_a_process_is_no_harm() -> None:
    memory = start(1, 2, BASE, 0.25, SETTINGS, 0.0)
    done, fast = 0.0, 0.0
    for tick in range(40):
        done += 10
        fast += 0 if tick == 20 else 10  # all ten requests of one second waited for the same pause
        memory = observe(memory, page(1.0 + tick, {**cluster(1, 10.0 * tick), **cluster(2, done, fast=fast)}), SETTINGS)
    assert verdict(memory, 40.0, SETTINGS).kind != "harm"


def test_missing_telemetry_and_few_samples_hold() -> None:
    memory = start(1, 2, BASE, 0.25, SETTINGS, 0.0)
    assert "nothing is known of the gateway" in verdict(memory, 1.0, SETTINGS).reason
    memory = observe(memory, page(1.0, {**cluster(1, 100), **cluster(2, 1)}), SETTINGS)
    assert "right and wrong answers" in verdict(memory, 1.0, SETTINGS).reason
    memory = observe(memory, page(1.0, {}, role="app"), SETTINGS)
    assert "too few samples: 0 of 50" in verdict(memory, 1.0, SETTINGS).reason
    assert "nothing is known of the gateway" in verdict(memory, 9.0, SETTINGS).reason


NUMBER = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers(-5, 10**12).map(float))
KEY = st.one_of(
    st.sampled_from(sorted(cluster(1, 1) | cluster(2, 1))),
    st.text(max_size=30),
    st.sampled_from(
        ['envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="intent_v1",le="x"}', "envoy_cluster_upstream_rq_xx{"]
    ),
)


@given(pages=st.lists(st.tuples(st.booleans(), st.dictionaries(KEY, NUMBER, max_size=8)), max_size=8))
def test_garbage_on_a_page_never_breaks_the_verdict(pages: list[Any]) -> None:
    memory, base = start(1, 2, BASE, 0.25, SETTINGS, 0.0), Baseline()
    for tick, (up, series) in enumerate(pages):
        memory = observe(memory, page(float(tick), series, up=up), SETTINGS)
        base = follow(base, page(float(tick), series, up=up), 1)
        assert verdict(memory, float(tick), SETTINGS).kind in ("harm", "fine", "hold")
        assert threshold(base, 0.25, SETTINGS) is None or base.latency


@pytest.mark.parametrize("labelled", [True, False])
def test_without_labels_the_answers_are_not_asked_for(labelled: bool) -> None:
    base = BASE if labelled else Baseline(version=1, error=BASE.error, latency=BASE.latency)
    memory = start(1, 2, base, 0.25, SETTINGS, 0.0)
    for tick in range(30):
        memory = observe(memory, page(1.0 + tick, {**cluster(1, 10.0 * tick), **cluster(2, 10.0 * tick)}), SETTINGS)
    assert (verdict(memory, 30.0, SETTINGS).kind == "fine") is not labelled

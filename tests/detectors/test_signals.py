"""Raw series to canonical signals."""

from __future__ import annotations

import math
from typing import Any

import pytest

from detectors.observe import Observer
from detectors.signals import REPLICA, Reading, canonical, gpu_values, increase, is_blank, quantile, read, replica_values
from detectors.ticks import Tick
from trimtab.messages import Snapshot


def test_names_and_labels_in_any_order() -> None:
    series = 'envoy_cluster_upstream_rq_xx{envoy_response_code_class="5",envoy_cluster_name="intent_v2"}'
    assert canonical("gateway", series) == "intent_v2|class5"
    assert canonical("triton", 'nv_inference_request_success{model="intent",version="2"}') == "success"
    assert canonical("triton", 'nv_inference_request_success{model="intent_feedback",version="2"}') is None
    assert canonical("triton", series) is None and canonical("gateway", "envoy_other{}") is None


def test_counters_that_go_back_or_are_unknown_have_no_increase() -> None:
    assert increase({"x": 5.0}, {"x": 3.0}, "x") == 2.0
    assert math.isnan(increase({"x": 1.0}, {"x": 3.0}, "x")) and math.isnan(increase({"x": 1.0}, {}, "x"))


def test_quantiles_are_interpolated_as_prometheus_does() -> None:
    buckets = [(0.1, 10.0), (0.2, 30.0), (math.inf, 40.0)]
    assert quantile(buckets, 0.5) == pytest.approx(0.15)
    assert quantile(buckets, 0.99) == 0.2  # above the last bound nothing is known
    assert math.isnan(quantile([], 0.5)) and math.isnan(quantile([(1.0, 0.0)], 0.5))


def test_dcgm_blanks_are_unknown() -> None:
    assert all(is_blank(v) for v in (9223372036854775794.0, 2147483632.0, None, math.nan)) and not is_blank(79.0)
    label = '{gpu="0",pod="a"}'
    series: dict[str, float | None] = {
        f"DCGM_FI_DEV_GPU_TEMP{label}": 9223372036854775794.0,
        f"DCGM_FI_DEV_GPU_UTIL{label}": 50.0,
        f"DCGM_FI_DEV_XID_ERRORS{label}": 0.0,
    }
    page = read(Snapshot(target="n", fleet="f", role="gpu", time=0.0, took=0.0, up=True, series=series))
    assert gpu_values(page) == {("a", "0"): {"gpu_utilisation": 0.5, "gpu_xid": 0.0}}


def test_replica_signals_from_two_pages() -> None:
    old = Reading(0.0, {"success": 10, "failure": 0, "infer_us": 1e5, "queue_us": 0, "request_us": 1e5}, 1)
    new = Reading(2.0, {"success": 30, "failure": 4, "infer_us": 5e5, "queue_us": 2e4, "request_us": 7e5, "pending": 3}, 2)
    row = dict(zip(REPLICA, replica_values(new, old, {}), strict=True))
    assert row["requests"] == 12 and row["failures"] == 2 and row["pending"] == 3
    assert row["infer_seconds"] == pytest.approx(0.02) and row["queue_seconds"] == pytest.approx(0.001)
    assert math.isnan(row["memory_bytes"]) and math.isnan(row["gpu_temperature"])  # unknown is not 0
    first = dict(zip(REPLICA, replica_values(new, None, {}), strict=True))
    assert math.isnan(first["requests"]) and first["pending"] == 3


def test_an_idle_replica_has_no_latency_rather_than_none() -> None:
    page = {"success": 10.0, "failure": 0.0, "infer_us": 1e5}
    row = dict(zip(REPLICA, replica_values(Reading(1.0, page, 1), Reading(0.0, page, 1), {}), strict=True))
    assert row["requests"] == 0 and math.isnan(row["infer_seconds"])


def test_pools_and_arrivals_from_real_looking_pages(world: Any, replica: Any) -> None:
    w = world([replica("a"), replica("c", version=2, role="canary", failing=0.5)], rate=200, seed=1)
    observer = Observer("intent")
    for t in range(4):
        seen = observer.observe(Tick(t, t + 1.0, {s.target: s for s in w.step()}, []))
    assert seen.versions == [1, 2] and 150 < seen.arrivals < 250
    assert 0.3 < seen.pool(2, "errors") / seen.pool(2, "answered") < 0.7 and seen.pool(1, "errors") == 0
    assert 0.005 < seen.pool(1, "p50_seconds") < 0.05 <= seen.pool(1, "p99_seconds") * 10
    assert seen.pool(1, "wrong") > 0 and math.isnan(seen.pool(3, "wrong"))
    assert seen.column("gpu_xid").tolist() == [0.0, 0.0]

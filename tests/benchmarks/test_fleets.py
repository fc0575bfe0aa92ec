"""The benchmark of many fleets: its meter, its pods and its traffic; and, with a cluster, a small run of it."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import Any

import pytest
from prometheus_client import start_http_server

from autoscaler.actuators.kubernetes_read import is_ready, replica
from autoscaler.series import gateway_counters
from benchmarks import frame
from benchmarks.fleets import meter, traffic
from benchmarks.fleets.pods import Kubelet
from benchmarks.suite import fleets
from trimtab.errors import SettingsError
from trimtab.kube import REQUESTS, Kube


def a_look(time: float, cpu: float, **requests: int) -> meter.Look:
    counts = Counter({(key.rpartition("_")[0], key.rpartition("_")[2]): number for key, number in requests.items()})
    return meter.Look(time, cpu, 64 * 2**20, counts, 10.0 * time, 5)


def test_a_cost_is_what_happened_between_two_looks() -> None:
    cost = meter.cost(a_look(100.0, 3.0, get_200=10), a_look(110.0, 8.0, get_200=40, patch_200=5, patch_409=4, get_none=1))
    assert (cost.cores, cost.rss_mib, cost.per_second, cost.steps_per_second) == (0.5, 64.0, 4.0, 10.0)
    assert cost.refused == 5
    assert cost.by_verb == "get 3.10/s, patch 0.90/s"


def test_a_look_reads_the_process_and_its_own_page() -> None:
    server, _ = start_http_server(0, addr="127.0.0.1")
    page = f"http://127.0.0.1:{server.server_port}/metrics"
    before = meter.look(os.getpid(), page)
    REQUESTS.labels("get", "418").inc()
    after = meter.look(os.getpid(), page)
    server.shutdown()
    server.server_close()
    assert after.requests - before.requests == Counter({("get", "418"): 1})
    assert after.cpu >= before.cpu > 0 and after.rss > 2**20


def test_a_pod_that_the_benchmark_plays_is_ready_to_the_operator() -> None:
    pod: dict[str, Any] = {
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"trimtab.dev/version": "1"}},
        "spec": {"containers": [{"name": "triton", "image": "x"}]},
    }
    assert not is_ready(pod)
    kubelet = Kubelet(None, "n")  # type: ignore[arg-type]
    first, second = kubelet.running(pod), kubelet.running(pod)
    played = pod | first
    assert is_ready(played) and replica(played, 100).phase == "ready"
    assert first["status"]["podIP"] != second["status"]["podIP"]


def test_the_traffic_is_what_the_autoscaler_reads() -> None:
    early, late = traffic.page("n_f0", 110.0, 100.0), traffic.page("n_f0", 160.0, 100.0)
    key = 'envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="n_f0"}'
    before, after = early.series[key], late.series[key]
    assert before is not None and after is not None and (after - before) / 50 == traffic.RATE
    counters = gateway_counters(late, 1)
    assert (counters.requests, counters.failed, counters.latency["+Inf"]) == (600.0, 0.0, 600.0)


def test_without_a_cluster_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(SettingsError, match="set KUBECONFIG"):
        fleets.run(frame.Options())
    with pytest.raises(SettingsError, match="takes no --fleets"):
        frame.measure("scaling", frame.Options(fleets=3))


@pytest.mark.e2e
def test_a_few_fleets_are_measured_and_nothing_is_left(kube: Kube) -> None:
    record = frame.measure("fleets", frame.Options(quick=True, fleets=4, say=lambda text: None))
    rows, figures = record["rows"], record["figures"]
    assert isinstance(rows, list) and [row["ready"] for row in rows] == [1, 4]
    assert isinstance(figures, dict) and all(isinstance(each, float) and math.isfinite(each) for each in figures.values())
    assert figures["lost"] == 0.0 and figures["cores"] > 0 and figures["requests_per_second"] > 0

"""Real requests through real Envoy pods to real Triton pods, steered by plans and labels."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from trimtab.kube import path_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def answered(fleet: Any, pod: str) -> float:
    """How many requests a replica has answered."""
    page = fleet.page(pod, 8002, "/metrics")
    return sum(float(value) for value in re.findall(r"^nv_inference_request_success\{[^}]*\} (\S+)$", page, re.MULTILINE))


def routed(fleet: Any, version: int) -> float:
    """How many requests all gateways have counted for a version."""
    name = f"{fleet.namespace}_intent_v{version}"
    pattern = rf'^envoy_cluster_upstream_rq_xx\{{[^}}]*class="2"[^}}]*cluster_name="{name}"[^}}]*\}} (\S+)$'
    pages = [fleet.page(gateway, 9901, "/stats/prometheus") for gateway in fleet.ready(2, role="gateway")]
    return sum(float(value) for page in pages for value in re.findall(pattern, page, re.MULTILINE))


def test_requests_are_answered_by_all_replicas_through_the_service(fleet: Any) -> None:
    replicas = fleet.ready(2, role="triton", state="serving")
    before = {pod: answered(fleet, pod) for pod in replicas}
    seen = fleet.traffic(8).summary()
    assert seen["errors"] == 0
    assert seen["ended"] > 100
    assert all(answered(fleet, pod) > before[pod] for pod in replicas)
    assert routed(fleet, 1) >= seen["ended"]


def test_a_quarantined_pod_leaves_without_a_failed_request(fleet: Any) -> None:
    one, other = fleet.ready(2, role="triton", state="serving")
    traffic = fleet.traffic(25)
    time.sleep(4)  # requests are under way
    label = {"metadata": {"labels": {"trimtab.dev/state": "quarantined"}}}
    fleet.kube.patch(path_of("pods", fleet.namespace, one), label)
    time.sleep(3)
    left = answered(fleet, one)
    replicas = fleet.ready(2, role="triton", state="serving")
    assert one not in replicas
    assert other in replicas
    seen = traffic.summary()
    assert seen["errors"] == 0
    assert answered(fleet, one) == left
    assert all(answered(fleet, pod) > 0 for pod in replicas)
    fleet.remove(one)


def test_pods_are_replaced_under_traffic_without_a_failed_request(fleet: Any) -> None:
    replica = fleet.ready(2, role="triton", state="serving")[0]
    gateway = fleet.ready(2, role="gateway")[0]
    traffic = fleet.traffic(30)
    time.sleep(3)
    fleet.remove(replica)
    fleet.remove(gateway)
    assert replica not in fleet.ready(2, role="triton", state="serving")
    assert gateway not in fleet.ready(2, role="gateway")
    assert traffic.summary()["errors"] == 0


def test_weights_of_the_plan_are_followed(fleet: Any) -> None:
    fleet.plan((1, "stable", 2, 50), (2, "canary", 1, 50))
    fleet.ready(1, role="triton", version="2")
    before = routed(fleet, 1), routed(fleet, 2)
    assert fleet.traffic(10).summary()["errors"] == 0
    one, two = routed(fleet, 1) - before[0], routed(fleet, 2) - before[1]
    assert one > 20
    assert two > 20
    fleet.plan((1, "stable", 2, 100))


def test_a_version_that_does_not_exist_says_so_and_harms_nobody(fleet: Any) -> None:
    fleet.plan((1, "stable", 2, 100), (9, "canary", 1, 0))

    def words() -> str | None:
        for pod in fleet.pods(role="triton", version="9"):
            for status in pod["status"].get("containerStatuses") or []:
                ended = status["state"].get("terminated") or status.get("lastState", {}).get("terminated") or {}
                if "message" in ended:
                    return str(ended["message"])
        return None

    end = time.monotonic() + 60
    while (found := words()) is None and time.monotonic() < end:
        time.sleep(0.5)
    assert found is not None
    assert "version 9 of model intent does not exist: /opt/trimtab/store has 1, 2" in found
    assert fleet.traffic(5).summary()["errors"] == 0
    fleet.plan((1, "stable", 2, 100))

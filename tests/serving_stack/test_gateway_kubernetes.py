"""From a plan and pods to what the gateway does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_stack.gateway import render
from serving_stack.gateway.kubernetes import gateway_state, model_of, plan_of, replica_of, selector
from trimtab.errors import SettingsError
from trimtab.messages import FleetPlan, PoolPlan

PLAN = FleetPlan(
    fleet="shop_intent",
    decision="d1",
    pools=[
        PoolPlan(version=1, role="stable", replicas=2, weight=90),
        PoolPlan(version=2, role="canary", replicas=1, weight=10),
    ],
    quarantined=["intent-v1-sick"],
)


def pod(
    name: str, version: object = 1, *, ready: bool = True, ip: str | None = "10.0.0.1", leaving: bool = False
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": {"trimtab.dev/version": str(version)},
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}),
        },
        "spec": {
            "containers": [
                {"name": "proxy", "ports": [{"name": "http", "containerPort": 1}]},
                {
                    "name": "triton",
                    "ports": [{"name": "http", "containerPort": 8000}, {"name": "metrics", "containerPort": 8002}],
                },
            ]
        },
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}], **({"podIP": ip} if ip else {})},
    }


def endpoints(*pods: dict[str, Any], plan: FleetPlan | None = PLAN) -> dict[int, tuple[tuple[str, int], ...]]:
    state = gateway_state("shop_intent", plan, [found for each in pods if (found := replica_of(each))])
    return {pool.version: pool.endpoints for pool in state.pools}


def test_ready_pods_of_a_planned_version_are_endpoints() -> None:
    assert endpoints(pod("b", ip="10.0.0.2"), pod("a"), pod("c", 2, ip="10.0.0.3")) == {
        1: (("10.0.0.1", 8000), ("10.0.0.2", 8000)),
        2: (("10.0.0.3", 8000),),
    }


@pytest.mark.parametrize(
    "absent",
    [
        pod("a", ready=False),
        pod("a", leaving=True),
        pod("a", ip=None),
        pod("a", 7),
        pod("a", "one"),
        pod("a", ""),
        pod("intent-v1-sick"),
        pod("a") | {"spec": {"containers": [{"name": "triton"}]}},
        pod("a") | {"status": {}},
        {"metadata": {"name": "a"}},
    ],
)
def test_what_is_not_ready_not_planned_leaving_or_quarantined_is_none(absent: dict[str, Any]) -> None:
    assert endpoints(absent) == {1: (), 2: ()}


def test_a_pod_says_whether_it_speaks_grpc() -> None:
    old, new = pod("a"), pod("b", ip="10.0.0.2")
    new["spec"]["containers"][1]["ports"].append({"name": "grpc", "containerPort": 8001})
    state = gateway_state("shop_intent", PLAN, [found for each in (old, new) if (found := replica_of(each))], "intent")
    assert state.pools[0].endpoints == (("10.0.0.1", 8000), ("10.0.0.2", 8000))
    assert state.pools[0].grpc == (("10.0.0.2", 8001),)
    assert state.model == "intent"


@pytest.mark.parametrize(("fleet", "model"), [({"spec": {"model": "intent"}}, "intent"), ({"spec": {}}, None), ({}, None)])
def test_the_model_is_read_from_the_fleet(fleet: dict[str, Any], model: str | None) -> None:
    assert model_of(fleet) == model


def test_without_a_plan_there_is_no_pool() -> None:
    assert endpoints(pod("a"), plan=None) == {}


def test_a_plan_is_read_as_an_object_or_as_text() -> None:
    plain = msgspec.to_builtins(PLAN)
    assert plan_of({"status": {"plan": plain}}) == PLAN
    assert plan_of({"status": {"plan": json.dumps(plain)}}) == PLAN
    assert plan_of({"status": {}}) is plan_of({}) is plan_of({"status": {"plan": {}}}) is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_an_unreadable_plan_is_refused_in_words(plan: object) -> None:
    try:
        assert plan_of({"status": {"plan": plan}}) is None
        assert not plan
    except SettingsError as error:
        assert str(error).startswith("status.plan is not a plan: ")


def test_the_selector_leaves_out_quarantined_pods() -> None:
    assert selector("intent") == "trimtab.dev/fleet=intent,trimtab.dev/role=triton,trimtab.dev/state=serving"


def test_names_of_namespace_and_fleet_make_one_envoy_cluster_name(tmp_path: Path) -> None:
    longest = f"{'n' * 63}_{'f' * 40}"
    files = render(gateway_state(longest, PLAN, []), tmp_path)
    names = {cluster["name"] for cluster in files["cds/clusters.json"]["resources"]}
    ends = ("", "_replicas", "_grpc", "_grpc_replicas")
    assert names == {f"{longest}_v{version}{end}" for version in (1, 2) for end in ends}


def test_only_metrics_and_readiness_of_the_admin_port_are_open_to_others(tmp_path: Path) -> None:
    bootstrap = render(gateway_state("shop_intent", PLAN, []), tmp_path)["bootstrap.json"]
    assert bootstrap["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    listeners = {each["name"]: each for each in bootstrap["static_resources"]["listeners"]}
    assert listeners["shop_intent"]["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": 8080}
    manager = listeners["metrics"]["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert [route["match"] for route in routes] == [{"path": "/stats/prometheus"}, {"path": "/ready"}]

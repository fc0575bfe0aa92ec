"""Pods to targets, without a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from collectors import cli
from collectors.discovery import Target
from collectors.discovery_kubernetes import pools_of, targets_of


def pod(name: str = "intent-v1-a", **changes: Any) -> dict[str, Any]:
    labels = {"trimtab.dev/fleet": "intent", "trimtab.dev/role": "triton", "trimtab.dev/version": "1"}
    given = {
        "metadata": {"namespace": "prod", "name": name, "labels": labels | changes.pop("labels", {})},
        "spec": {"containers": [{"name": "triton", "ports": [{"name": "metrics", "containerPort": 8002}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }
    for part, values in changes.items():
        given[part] |= values
    return given


def fleet(plan: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "prod", "name": "intent"}, "status": {"plan": plan}}


def one(pod: dict[str, Any], pools: Any = None) -> Target:
    targets, mistakes = targets_of([pod], pools or {})
    assert not mistakes
    return targets[0]


def test_a_replica() -> None:
    pools = pools_of([fleet({"pools": [{"version": 1, "role": "stable"}, {"version": 2, "role": "canary"}]})])
    assert one(pod(), pools) == Target("intent-v1-a", "http://10.0.0.1:8002/metrics", "prod_intent", "triton", "stable", 1)
    assert one(pod(labels={"trimtab.dev/version": "2"}), pools).pool == "canary"
    assert one(pod(labels={"trimtab.dev/version": "3"}), pools).pool is None  # in no pool: unknown, not stable


def test_a_gateway_has_envoys_page_and_no_version() -> None:
    gateway = pod("intent-gateway-x", labels={"trimtab.dev/role": "gateway"})
    del gateway["metadata"]["labels"]["trimtab.dev/version"]
    assert one(gateway) == Target("intent-gateway-x", "http://10.0.0.1:8002/stats/prometheus", "prod_intent", "gateway")


def test_a_path_of_its_own_a_sidecars_port_and_an_ipv6_address() -> None:
    assert one(pod(metadata={"annotations": {"prometheus.io/path": "/m?x=1"}})).url.endswith(":8002/m?x=1")
    sidecar = {"containers": [{"name": "a"}], "initContainers": [{"ports": [{"name": "metrics", "containerPort": 9}]}]}
    assert one(pod(spec=sidecar)).url == "http://10.0.0.1:9/metrics"
    assert one(pod(status={"podIP": "fd00::1"})).url == "http://[fd00::1]:8002/metrics"


def test_a_sick_pod_is_a_target_and_a_gone_one_is_not() -> None:
    sick = {"conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [{"state": {"waiting": {}}}]}
    assert one(pod(status=sick | {"phase": "Pending"}))
    assert one(pod(labels={"trimtab.dev/state": "quarantined"}))
    gone = [
        pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
        pod(status={"phase": "Failed"}),
        pod(status={"phase": "Succeeded"}),
        pod(status={"podIP": ""}),
        {"metadata": pod()["metadata"]},
    ]
    assert targets_of(gone, {}) == ([], [])


def test_a_pod_without_a_metrics_port_is_none_of_ours() -> None:
    assert targets_of([pod(spec={"containers": [{"ports": [{"name": "http", "containerPort": 1}]}]})], {}) == ([], [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": {"trimtab.dev/role": "cook"}}, "'cook' and not one of triton, gateway"),
        ({"labels": {"trimtab.dev/version": "v1"}}, "'v1' and not a whole number"),
        ({"labels": {"trimtab.dev/version": "²"}}, "not a whole number"),
        ({"metadata": {"annotations": {"prometheus.io/path": "@evil.example:1/"}}}, "does not begin with '/'"),
    ],
)
def test_a_wrong_label_is_said_and_the_others_are_scraped(change: dict[str, Any], words: str) -> None:
    wrong = pod("wrong")
    wrong["metadata"]["labels"] |= change.get("labels", {})
    wrong["metadata"] |= change.get("metadata", {})
    targets, mistakes = targets_of([wrong, pod("right")], {})
    assert [target.target for target in targets] == ["right"]
    assert len(mistakes) == 1 and mistakes[0].startswith("pod prod/wrong is not scraped: ") and words in mistakes[0]


@pytest.mark.parametrize(
    "status", [None, {}, {"plan": None}, {"plan": "{"}, {"plan": []}, {"plan": {"pools": [{"role": "king"}]}}]
)
def test_a_fleet_without_a_plan_has_no_pools(status: Any) -> None:
    assert pools_of([{"metadata": {"namespace": "a", "name": "b"}, "status": status}]) == {"a_b": {}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either --targets"),
        (["--targets", "t.json", "--kubernetes"], "either --targets"),
        (["--targets", "t.json", "-A"], "go with --kubernetes"),
        (["--kubernetes", "-A", "-n", "x"], "exclude each other"),
    ],
)
def test_the_command_wants_one_source(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(cli.collect, arguments)
    assert result.exit_code == 2 and words in " ".join(result.output.replace("│", " ").split())

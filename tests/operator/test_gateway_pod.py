"""What a ModelFleet says about its gateway, as pods. No cluster."""

from __future__ import annotations

from typing import Any

from autoscaler.actuators.kubernetes_pods import Templates, gateway_pod
from autoscaler.operator.fleet import read


def pod(**gateway: Any) -> dict[str, Any]:
    meta = {"namespace": "prod", "name": "intent", "uid": "u", "generation": 1}
    spec = {"model": "intent", "capacityPerReplica": 40, "gateway": gateway}
    found: dict[str, Any] = gateway_pod(read({"metadata": meta, "spec": spec}), Templates())["spec"]
    return found


def containers(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in found["containers"]}


def test_a_secret_is_mounted_where_both_look_for_it_and_only_the_sidecar_is_told() -> None:
    found = pod(accessSecret="doors")
    assert {"name": "access", "secret": {"secretName": "doors"}} in found["volumes"]
    for each in containers(found).values():
        assert {"name": "access", "mountPath": "/access", "readOnly": True} in each["volumeMounts"]
    assert containers(found)["sync"]["env"] == [{"name": "TRIMTAB_GATEWAY_ACCESS_FOLDER", "value": "/access"}]


def test_copies_are_the_sidecars_business() -> None:
    assert containers(pod(mirrorPercent=5))["sync"]["env"] == [{"name": "TRIMTAB_GATEWAY_MIRROR_PERCENT", "value": "5"}]


def test_without_either_nothing_is_mounted_or_set() -> None:
    found = pod()
    assert "access" not in str(found)
    assert "env" not in containers(found)["sync"]

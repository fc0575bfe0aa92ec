"""Pods and Deployments as the API gives them -> replicas, problems, who scales. No cluster."""

from __future__ import annotations

from typing import Any

import pytest

from autoscaler.actuators.kubernetes_conflict import Conflicts
from autoscaler.actuators.kubernetes_objects import digest, fixed, gateway_deployment, replica_deployment, with_weights
from autoscaler.actuators.kubernetes_pods import Templates
from autoscaler.actuators.kubernetes_read import foreign_scaler, pools, problems, replica
from autoscaler.operator.fleet import Fleet, read
from trimtab.errors import SettingsError

Json = dict[str, Any]
T0, T1 = "2026-11-24T10:00:00Z", "2026-11-24T10:00:05Z"


def fleet(annotations: dict[str, str] | None = None, **spec: Any) -> Fleet:
    given = {"model": "intent", "capacityPerReplica": 40, **spec}
    return read(
        {"metadata": {"namespace": "prod", "name": "intent", "uid": "u", "annotations": annotations or {}}, "spec": given}
    )


def pod(name: str = "p", *, ready: bool = False, state: str = "serving", version: str = "1", **status: Any) -> Json:
    labels = {"trimtab.dev/version": version, "trimtab.dev/state": state, "trimtab.dev/role": "triton"}
    conditions = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": T1}]
    return {
        "metadata": {"name": name, "labels": labels, "creationTimestamp": T0},
        "status": {"phase": "Running", "conditions": conditions, **status},
    }


def waiting(reason: str, message: str = "", last: Json | None = None) -> Json:
    state: Json = {"name": "triton", "image": "x:1", "state": {"waiting": {"reason": reason, "message": message}}}
    return {"containerStatuses": [state | ({"lastState": {"terminated": last}} if last else {})]}


def test_phases() -> None:
    assert (found := replica(pod(ready=True), 100)).phase == "ready" and found.in_traffic
    assert not replica(pod(ready=True), 0).in_traffic
    assert replica(pod(), 100).phase == "starting"
    assert replica(pod(ready=True, state="quarantined"), 100).phase == "quarantined"
    assert not replica(pod(ready=True, state="quarantined"), 100).in_traffic
    leaving = pod(ready=True)
    leaving["metadata"] |= {"deletionTimestamp": "2026-11-24T10:01:00Z", "deletionGracePeriodSeconds": 40}
    assert (found := replica(leaving, 100)).phase == "draining" and not found.in_traffic
    ended = {"exitCode": 2, "message": "this model store has no version 3", "finishedAt": T1}
    crashed = replica(pod(**waiting("CrashLoopBackOff", last=ended)), 100)
    assert crashed.phase == "failed" and "exited with 2: this model store has no version 3" in str(crashed.error)
    assert crashed.since > replica(pod(), 0).since
    assert replica(pod(phase="Failed", message="evicted: memory"), 100).error == "evicted: memory"
    pulling = replica(pod(**waiting("ImagePullBackOff", "not found")), 100)
    assert pulling.phase == "starting" and "cannot be pulled" in str(pulling.error)


def test_pools_of_a_plan_and_of_none() -> None:
    pods = [pod("a", ready=True), pod("b", version="2")]
    planned = pools({1: ("stable", 80), 2: ("canary", 20)}, {1: 1, 2: 1}, pods, 1)
    assert [(each.version, each.role, each.weight, each.wanted, len(each.replicas)) for each in planned] == [
        (1, "stable", 80, 1, 1),
        (2, "canary", 20, 1, 1),
    ]
    lost = pools({}, {1: 1, 2: 1}, pods, 2)  # without a plan, the spec's version is taken for the one that serves
    assert [(each.version, each.role, each.weight) for each in lost] == [(1, "previous", 0), (2, "stable", 0)]
    assert pools({}, {}, [], 1) == []


def test_problems_in_words() -> None:
    unschedulable = pod()
    unschedulable["status"]["conditions"] = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes: 1 Insufficient nvidia.com/gpu.",
        }
    ]
    failing = {
        "status": {
            "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "pods is forbidden: exceeded quota: few"}]
        }
    }
    found = problems(
        [
            unschedulable,
            pod(**waiting("ErrImagePull")),
            pod(**waiting("ImagePullBackOff")),
            pod(**waiting("CreateContainerConfigError", 'secret "x" not found')),
            pod(version="7", **waiting("CrashLoopBackOff", last={"exitCode": 1, "reason": "Error"})),
        ],
        [failing],
    )
    assert [each.reason for each in found] == [
        "QuotaExceeded",
        "GpuUnavailable",
        "ImagePullFailed",
        "PodConfigInvalid",
        "VersionFailed",
    ]
    assert "version 7 does not run" in found[-1].message and 'secret "x" not found' in found[-2].message
    gone = pod(**waiting("ErrImagePull"))
    gone["metadata"]["deletionTimestamp"] = T1
    assert problems([gone, pod(ready=True)], []) == []


def test_who_scales() -> None:
    def deployment(*managers: tuple[str, bool]) -> Json:
        fields = [{"manager": name, "fieldsV1": {"f:spec": {"f:replicas": {}} if owns else {}}} for name, owns in managers]
        return {"metadata": {"managedFields": fields}}

    assert foreign_scaler(deployment(("trimtab", True), ("kube-controller-manager", False))) is None
    assert foreign_scaler(deployment(("trimtab", False), ("kube-controller-manager", True))) == "kube-controller-manager"
    assert foreign_scaler({"metadata": {}}) is None


def test_a_foreign_number_is_corrected_a_few_times_and_then_only_said() -> None:
    conflicts = Conflicts()
    corrections = 0
    for second in range(0, 900):
        now = 1000.0 + second
        if conflicts.wanted("f", 1, 5, 2, "hpa", now) == 5:
            conflicts.corrected("f", 1, 5, 2, "hpa", now)
            corrections += 1
    assert corrections == 6  # three in ten minutes, a minute apart, and three in the next
    assert (said := conflicts.current("f", now)) and (said.manager, said.found, said.planned) == ("hpa", 5, 2)
    assert conflicts.current("f", now + 200) is None
    assert conflicts.wanted("g", 1, 5, 2, None, now) == 5  # our own unfinished act is not a conflict
    assert conflicts.wanted("g", 1, 5, None, "hpa", now) == 5
    conflicts.forget("f")
    assert conflicts.current("f", now) is None


def test_objects_depend_only_on_the_spec() -> None:
    one, two = (replica_deployment(fleet(), 1, count, Templates()) for count in (1, 5))
    assert one["metadata"]["annotations"] == two["metadata"]["annotations"] and two["spec"]["replicas"] == 5
    assert (
        one["metadata"]["annotations"]
        != replica_deployment(fleet(gpu={"count": 1}), 1, 1, Templates())["metadata"]["annotations"]
    )
    assert (
        digest(fixed(fleet()))
        == digest(fixed(fleet(version=2)))
        != digest(fixed(fleet(remediation={"maxUnavailablePercent": 50})))
    )


def test_pods_pass_the_restricted_profile_and_carry_what_the_spec_says() -> None:
    drill = '{"kind":"slow","seconds":0.2}'
    spec: Json = {
        "gpu": {"count": 2},
        "repository": {"image": "reg/x:1", "claimName": "models", "pullSecrets": ["reg"]},
        "scheduling": {"nodeSelector": {"gpu": "a100"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
    }
    made = fleet({"trimtab.dev/drill-v1": drill}, **spec)
    deployments = [replica_deployment(made, 1, 1, Templates()), gateway_deployment(made, Templates())]
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and context["capabilities"] == {"drop": ["ALL"]}
            assert not context["allowPrivilegeEscalation"] and "command" not in container
        assert (
            deployment["spec"]["selector"]["matchLabels"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
        )
    pod = deployments[0]["spec"]["template"]["spec"]
    (triton,) = pod["containers"]
    assert triton["args"] == ["triton", "--model", "intent", "--version", "1"] and triton["image"] == "reg/x:1"
    assert {"name": "TRIMTAB_DRILL", "value": drill} in triton["env"] and triton["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert pod["volumes"][1]["persistentVolumeClaim"]["readOnly"] and pod["imagePullSecrets"] == [{"name": "reg"}]
    assert pod["nodeSelector"] == {"gpu": "a100"} and pod["tolerations"]
    other = replica_deployment(made, 2, 1, Templates())["spec"]["template"]["spec"]["containers"][0]["env"]
    assert not any(each["name"] == "TRIMTAB_DRILL" for each in other)


def test_the_weights_of_a_route() -> None:
    backends = [{"name": "vllm-v1", "port": 80}, {"name": "vllm-v2", "port": 80, "weight": 0}, {"name": "else", "port": 1}]
    route = {"metadata": {"name": "r"}, "spec": {"rules": [{"backendRefs": backends}]}}
    changed = with_weights(route, {"vllm-v1": 80, "vllm-v2": 20})
    assert changed is not None and [each.get("weight") for each in changed["spec"]["rules"][0]["backendRefs"]] == [80, 20, None]
    assert with_weights(changed, {"vllm-v1": 80, "vllm-v2": 20}) is None and "weight" not in backends[0]
    with pytest.raises(SettingsError, match="no backend vllm-v3"):
        with_weights(route, {"vllm-v3": 5})

"""Bad input and trouble on a real API server: a condition and an Event say what is wrong, and it mends itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from world import World

from autoscaler.operator.api import ModelFleetSpec
from trimtab.kube import Kube, KubeError, path_of

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
Make = Callable[..., Json]


def name_of(made: Json) -> str:
    return str(made["metadata"]["name"])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"replicas": {"min": 3, "max": 2}}, "replicas.min must not be greater than replicas.max"),
        ({"rollout": {"steps": [50, 20]}}, "rollout.steps must rise"),
        ({"rollout": {"steps": [20, 20]}}, "rollout.steps must rise"),
        ({"rollout": {"steps": [0]}}, "greater than or equal to 1"),
        ({"targetRef": {"name": "x"}, "repository": {}}, "not both"),
        ({"routing": {"httpRoute": "x", "service": "y"}}, "routing belongs to a fleet with targetRef"),
        ({"capacityPerReplica": 0}, "capacityPerReplica must be greater than 0"),
        ({"capacityPerReplica": None}, "Required value"),
        ({"version": 0}, "greater than or equal to 1"),
        ({"model": "Not A Model"}, "should match"),
        ({"freezes": [{"start": "2026-12-02T00:00:00Z", "end": "2026-12-01T00:00:00Z"}]}, "start must be before end"),
        ({"freezes": [{"from": "25:00"}]}, "should match"),
        ({"freezes": [{"days": ["Someday"]}]}, "supported values"),
        ({"schedule": [{"minReplicas": 5, "maxReplicas": 2}]}, "minReplicas must not be greater than maxReplicas"),
        ({"override": {"replicas": 2}}, "until: Required value"),
        ({"targetRef": {"name": "x", "kind": "StatefulSet"}}, "supported values"),
    ],
)
def test_the_api_server_refuses_bad_specs_in_words(make_fleet: Make, spec: Json, words: str) -> None:
    with pytest.raises(KubeError) as refusal:
        make_fleet(**spec)
    assert words in str(refusal.value) and refusal.value.status == 422


def test_what_must_not_change_is_refused_in_words(kube: Kube, namespace: str, make_fleet: Make, world: World) -> None:
    name = name_of(make_fleet(targetRef={"name": "single"}, paused=True))
    for change, words in (
        ({"model": "another"}, "model cannot be changed"),
        ({"version": 2}, "put {version} into the name"),
        ({"targetRef": None}, "cannot change between targetRef and managed"),
    ):
        with pytest.raises(KubeError, match=words):
            world.spec(name, **change)
    with pytest.raises(KubeError, match="at most 40 characters"):
        make_fleet(name="n" * 41)


def test_the_api_server_and_the_operator_know_the_same_defaults(make_fleet: Make) -> None:
    made = make_fleet(resources=None, gateway=None, paused=True)["spec"]
    plain = ModelFleetSpec(model="intent", capacity_per_replica=40, paused=True)
    assert ModelFleetSpec.model_validate(made) == plain


def test_an_image_that_cannot_be_pulled(world: World, make_fleet: Make) -> None:
    name = name_of(make_fleet(repository={"image": "docker.io/local/nothing:1", "pullPolicy": "Never"}))
    said = world.is_so(name, "Degraded", "ImagePullFailed")
    assert "docker.io/local/nothing:1" in said["message"]
    assert world.until(lambda: world.events(name).get("ImagePullFailed"), "an Event")["type"] == "Warning"
    world.is_so(name, "Ready", "NoReplicaReady")
    world.spec(name, repository={"image": world.templates.serving_image})
    world.ready(name)
    world.is_so(name, "Degraded", "AsExpected")


def test_a_canary_whose_gpu_is_missing_is_rolled_back_and_serving_goes_on(world: World, make_fleet: Make) -> None:
    name = name_of(make_fleet(rollout={"startDeadlineSeconds": 5}))
    world.ready(name)
    world.spec(name, version=2, gpu={"count": 1})
    said = world.is_so(name, "Degraded", "GpuUnavailable")
    assert "Insufficient nvidia.com/gpu" in said["message"]
    world.until(lambda: world.decisions(name, "rollback"), "rolled back")
    assert world.is_so(name, "Progressing", "RolledBack")
    assert world.condition(name, "Ready")["status"] == "True" and world.status(name)["version"] == 1
    world.spec(name, gpu=None)
    world.is_so(name, "Degraded", "AsExpected")
    assert world.status(name).get("canaryVersion") is None  # a change that is no release releases nothing again
    world.annotate(name, released_at=_now())
    world.until(lambda: world.status(name).get("canaryVersion") == 2, "released again on request")


def test_no_quota(world: World, make_fleet: Make, kube: Kube, namespace: str) -> None:
    name = name_of(make_fleet(replicas={"min": 1, "max": 5}))
    world.ready(name)
    pods = len(kube.get(path_of("pods", namespace))["items"])
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": str(pods)}}}
    kube.create(path_of("resourcequotas", namespace), quota)
    try:
        world.until(
            lambda: kube.get(path_of("resourcequotas", namespace, "few")).get("status", {}).get("used", {}).get("pods"),
            "the quota is counted",
        )
        world.spec(name, replicas={"min": 5})
        assert "exceeded quota: few" in world.is_so(name, "Degraded", "QuotaExceeded")["message"]
    finally:
        kube.delete(path_of("resourcequotas", namespace, "few"))
    world.spec(name, replicas={"min": 1})
    world.is_so(name, "Degraded", "AsExpected")


def test_a_hand_is_mended_and_a_foreign_autoscaler_is_reported_and_not_fought(world: World, make_fleet: Make) -> None:
    name = name_of(make_fleet(replicas={"min": 1, "max": 4}))
    world.ready(name)
    where = path_of("deployments", world.namespace, f"{name}-v1", api="apps/v1") + "/scale"

    def foreign(count: int) -> None:
        world.kube.patch(where, {"spec": {"replicas": count}}, fieldManager="somebody")

    def replicas() -> int:
        return int(world.deployment(f"{name}-v1")["spec"]["replicas"])

    foreign(3)
    world.until(lambda: replicas() == 1, "mended once, at once", 10)
    said = world.is_so(name, "ScalingConflict", "ForeignScaler")
    assert "somebody set version 1 to 3 replicas, planned are 1" in said["message"]
    foreign(2)
    import time

    time.sleep(3.0)
    assert replicas() == 2  # within a minute it is only said
    world.spec(name, replicas={"min": 3})
    world.until(lambda: replicas() == 3, "a plan of its own is applied all the same")


def test_a_real_autoscaler_on_the_same_deployment_is_reported_and_not_fought(
    world: World, make_fleet: Make, kube: Kube, namespace: str
) -> None:
    name = name_of(make_fleet(replicas={"min": 1, "max": 4}))
    world.ready(name)
    # A number of its own without any metrics: below its minReplicas an HPA scales at once.
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{name}-v1"}
    spec = {"scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 5}
    meta = {"name": name, "namespace": namespace}
    hpa = path_of("horizontalpodautoscalers", namespace, api="autoscaling/v2")
    kube.create(hpa, {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": spec})
    try:
        said = world.is_so(name, "ScalingConflict", "ForeignScaler")
        assert "set version 1 to 3 replicas, planned are 1" in said["message"]
        assert world.until(lambda: world.events(name).get("ForeignScaler"), "an Event")["type"] == "Warning"
        # It is corrected once, sets its number again at its next look, and then has it: no tug-of-war.
        world.until(lambda: world.events(name) and len(world.pods(name)) == 3, "the HPA's number stays", 60)
        assert world.condition(name, "Ready")["status"] == "True"
    finally:
        kube.delete(f"{hpa}/{name}")
    world.until(
        lambda: world.deployment(f"{name}-v1")["spec"]["replicas"] == 1, "without the HPA it is as planned in a minute", 150
    )


def test_a_namespace_that_does_not_know_the_time_zone_is_told(world: World, make_fleet: Make) -> None:
    name = name_of(make_fleet(freezes=[{"timeZone": "Atlantis/Capital"}]))
    assert "Atlantis/Capital" in world.is_so(name, "Degraded", "InvalidSpec")["message"]
    world.spec(name, freezes=[])
    world.ready(name)


def test_a_deployment_removed_by_hand_comes_back(world: World, make_fleet: Make) -> None:
    name = name_of(make_fleet())
    world.ready(name)
    for each in (f"{name}-v1", f"{name}-gateway"):
        uid = world.deployment(each)["metadata"]["uid"]
        world.kube.delete(path_of("deployments", world.namespace, each, api="apps/v1"))

        def back(each: str = each, uid: str = uid) -> bool:
            try:
                return bool(world.deployment(each)["metadata"]["uid"] != uid)
            except KubeError:
                return False

        world.until(back, f"{each} is back")
    world.ready(name)


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat()

"""A fleet over Deployments of somebody else, on a real API server: scaled and healed, never owned; weights of an HTTPRoute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from world import World

from trimtab.kube import Kube, KubeError, fleet_path, path_of

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
Make = Callable[..., Json]
ROUTES = "gateway.networking.k8s.io/v1"


def deployment(kube: Kube, namespace: str, name: str, image: str, replicas: int = 1) -> None:
    labels = {"app": name, "tier": "models"}
    pod = {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "server", "image": image, "imagePullPolicy": "IfNotPresent"}],
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    made = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    kube.create(path_of("deployments", namespace, api="apps/v1"), made)


def test_a_deployment_of_ones_own_is_scaled_healed_and_left_alone(
    world: World, make_fleet: Make, kube: Kube, namespace: str
) -> None:
    deployment(kube, namespace, "vllm", world.templates.serving_image)
    target = {"name": "vllm", "role": "vllm"}
    name = str(make_fleet(targetRef=target, replicas={"min": 2, "max": 3}, gateway=None, resources=None)["metadata"]["name"])
    world.ready(name)
    world.until(lambda: world.status(name).get("readiness") == "2/2", "scaled to two")
    pods = world.until(lambda: len(found := world.pods(name, role="vllm")) == 2 and found, "labelled for scrapers")
    assert {pod["metadata"]["labels"]["trimtab.dev/version"] for pod in pods} == {"1"}
    assert "ownerReferences" not in world.deployment("vllm")["metadata"]
    sick = pods[0]["metadata"]["name"]
    world.find(name, kind="replica_fault", target=sick)
    (out,) = world.until(lambda: world.pods(name, role="vllm", state="quarantined"), "quarantined")
    assert out["metadata"]["name"] == sick and out["metadata"]["labels"]["app"] == "trimtab-quarantined"
    assert [each["kind"] for each in out["metadata"]["ownerReferences"]] == ["ModelFleet"]
    world.until(lambda: world.status(name).get("readiness") == "2/2", "replaced")
    kube.delete(fleet_path(namespace, name))

    def gone() -> bool:
        try:
            world.fleet(name)
        except KubeError as error:
            return error.status == 404
        return False

    world.until(gone, "the fleet is gone")
    assert world.deployment("vllm")["spec"]["replicas"] == 2
    world.until(lambda: not world.pods(name, role="vllm", state="quarantined"), "only what was in quarantine is gone")


def test_a_target_that_does_not_exist_is_told_and_found_when_it_is_made(
    world: World, make_fleet: Make, kube: Kube, namespace: str
) -> None:
    name = str(make_fleet(targetRef={"name": "later"}, gateway=None, resources=None)["metadata"]["name"])
    said = world.until(lambda: (found := world.condition(name, "Degraded")).get("status") == "True" and found, "told")
    assert "there is no Deployment later" in said["message"]
    deployment(kube, namespace, "later", world.templates.serving_image)
    world.ready(name)
    world.is_so(name, "Degraded", "AsExpected")


def test_the_weights_of_an_http_route_follow_the_plan(world: World, make_fleet: Make, kube: Kube, namespace: str) -> None:
    try:
        kube.get(path_of("httproutes", namespace, api=ROUTES))
    except KubeError:
        pytest.skip("needs the CRDs of the Gateway API on the cluster (standard channel)")
    for version in (1, 2):
        deployment(kube, namespace, f"own-v{version}", world.templates.serving_image, replicas=2 - version)
    backends = [{"name": f"own-v{version}", "port": 80, "weight": 100 * (version == 1)} for version in (1, 2)]
    meta = {"name": "own", "namespace": namespace}
    route = {"apiVersion": ROUTES, "kind": "HTTPRoute", "metadata": meta, "spec": {"rules": [{"backendRefs": backends}]}}
    kube.create(path_of("httproutes", namespace, api=ROUTES), route)
    made = make_fleet(
        targetRef={"name": "own-v{version}"},
        routing={"httpRoute": "own", "service": "own-v{version}"},
        rollout={"steps": [20, 50], "stepSeconds": 0, "guardSeconds": 600},
        gateway=None,
        resources=None,
    )
    name = str(made["metadata"]["name"])

    def weights() -> list[int]:
        found = kube.get(path_of("httproutes", namespace, "own", api=ROUTES))
        return [each["weight"] for each in found["spec"]["rules"][0]["backendRefs"]]

    world.ready(name)
    world.under(name, 20, lambda: world.condition(name, "TelemetryFresh").get("reason") == "Fresh", "telemetry")
    world.spec(name, version=2)
    world.under(name, 20, lambda: weights() == [80, 20], "a fifth of the traffic")
    world.under(name, 400, lambda: weights() == [10, 90], "promoted, the old one kept warm")
    assert "back to" in world.ask(name, "rollback", version=2)["reason"]
    world.until(lambda: weights() == [100, 0], "all back")

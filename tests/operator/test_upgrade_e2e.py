"""Upgrades on a real API server: another CRD under a running operator, and another operator over running fleets."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from world import World

from trimtab.kube import Kube, KubeError, fleet_path, path_of

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
Make = Callable[..., Json]
CRD = Path(__file__).parents[2] / "deploy/kubernetes/base/crd/modelfleet.yaml"


def install(kube: Kube, definition: Json) -> None:
    where = path_of("customresourcedefinitions", None, definition["metadata"]["name"], api="apiextensions.k8s.io/v1")
    kube.apply(where, definition, manager="trimtab-install")


@pytest.fixture
def newer(kube: Kube) -> Iterator[None]:
    """The CRD of a later release, with one field more; the present one comes back afterwards."""
    present = yaml.safe_load(CRD.read_text())
    later = copy.deepcopy(present)
    spec = later["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["fromALaterRelease"] = {"type": "string", "maxLength": 63}
    install(kube, later)
    yield
    install(kube, present)


def test_a_newer_crd_under_a_running_operator(world: World, make_fleet: Make, kube: Kube, request: pytest.FixtureRequest) -> None:
    name = str(make_fleet(replicas={"min": 1, "max": 4})["metadata"]["name"])
    world.ready(name)
    before = {pod["metadata"]["uid"] for pod in world.pods(name)}
    request.getfixturevalue("newer")

    def kept() -> bool:
        world.spec(name, fromALaterRelease="a word")
        return bool(world.fleet(name)["spec"].get("fromALaterRelease") == "a word")

    world.until(kept, "the API server knows the new field", 30)
    world.until(lambda: _observed(world, name), "the operator has read it")
    assert world.condition(name, "Degraded")["reason"] == "AsExpected"
    world.spec(name, replicas={"min": 2})
    world.until(lambda: world.status(name).get("readyReplicas") == 2, "the operator goes on")
    install(kube, yaml.safe_load(CRD.read_text()))

    def pruned() -> bool:
        world.spec(name, replicas={"min": 3})
        return "fromALaterRelease" not in world.fleet(name)["spec"]

    world.until(pruned, "the API server has the present CRD again", 30)
    world.until(lambda: world.status(name).get("readyReplicas") == 3, "and the operator still goes on")
    assert before <= {pod["metadata"]["uid"] for pod in world.pods(name)}  # nothing was rolled


def test_another_operator_rolls_pods_only_when_they_would_be_others_and_one_at_a_time(
    world: World, make_fleet: Make, kube: Kube
) -> None:
    name = str(make_fleet(replicas={"min": 2, "max": 4})["metadata"]["name"])
    world.ready(name)
    world.until(lambda: world.status(name).get("readyReplicas") == 2, "two ready")
    before = _uids(world, name)

    world.stop()
    assert _uids(world, name) == before  # without an operator all serves on
    assert world.start().ready.wait(60)
    world.spec(name, slo={"p99Milliseconds": 251})
    world.until(lambda: _observed(world, name), "a newer operator with the same images has looked at the fleet")
    assert _uids(world, name) == before

    world.stop()
    usual, world.templates = world.templates, dataclasses.replace(world.templates, grace_seconds=2)
    seen: list[tuple[int, int]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            try:
                status = world.deployment(f"{name}-v1").get("status", {})
            except KubeError:
                continue
            seen.append((status.get("readyReplicas", 0), status.get("replicas", 0)))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        assert world.start().ready.wait(60)
        world.until(lambda: len(now := _uids(world, name)) == 3 and not now & before, "two replicas and the gateway are new")
    finally:
        stop.set()
        watching.join(5)
        world.templates = usual
    assert {ready >= 2 and replicas <= 3 for ready, replicas in seen} == {True}, sorted(set(seen))
    world.ready(name)
    kube.delete(fleet_path(world.namespace, name))


def _observed(world: World, name: str) -> bool:
    fleet = world.fleet(name)
    return bool(fleet.get("status", {}).get("observedGeneration") == fleet["metadata"]["generation"])


def _uids(world: World, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for role in ("triton", "gateway") for pod in world.pods(name, role, "")}

"""A version that the image does not have, with the real serving image: its pod says so, and the version before serves on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rights import gateway_role
from world import World

from autoscaler.actuators.kubernetes_pods import Templates
from trimtab.kube import Kube

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
Make = Callable[..., Json]


@pytest.fixture(scope="module")
def real(kube: Kube, namespace: str, until: Callable[..., Any]) -> Iterator[World]:
    """An operator whose pods are those of a user, of the images that `make images` builds."""
    gateway_role(kube)
    found = World(kube, namespace, Templates(grace_seconds=5), until)
    assert found.start().ready.wait(30)
    yield found
    found.stop()


def test_a_version_that_does_not_exist_is_rolled_back_and_serving_goes_on(real: World, make_fleet: Make, kube: Kube) -> None:
    nodes = kube.get("/api/v1/nodes")["items"]
    images = {name for node in nodes for image in node["status"].get("images") or [] for name in image.get("names") or []}
    if not any(name.endswith("trimtab-serving:dev") for name in images):
        pytest.skip("needs the image trimtab-serving:dev on the node (`make images`)")
    small = {"requests": {"cpu": "50m", "memory": "200Mi"}, "limits": {"memory": "800Mi"}}
    name = str(make_fleet(resources=small, rollout={"startDeadlineSeconds": 120})["metadata"]["name"])
    real.is_so(name, "Ready", "Serving", 240)
    real.spec(name, version=99)
    said = real.is_so(name, "Degraded", "VersionFailed", 120)
    assert "version 99 does not run" in said["message"] and "exited with 2" in said["message"]
    assert real.until(lambda: real.events(name).get("VersionFailed"), "an Event")["type"] == "Warning"
    real.until(lambda: real.decisions(name, "rollback"), "rolled back")
    assert real.condition(name, "Ready")["status"] == "True" and real.status(name)["version"] == 1
    real.spec(name, version=1)
    real.is_so(name, "Degraded", "AsExpected")
    assert real.status(name).get("canaryVersion") is None

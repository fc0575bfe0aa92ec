"""A real API server for the tests marked `e2e` ($KUBECONFIG), a namespace of their own, and fleets in memory for the rest."""

from __future__ import annotations

import contextlib
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoscaler.actuators.kubernetes import KubernetesActuator
from autoscaler.actuators.kubernetes_cache import OPERATOR, Cache
from autoscaler.actuators.kubernetes_pods import Templates
from trimtab.kube import API_VERSION, Kube, KubeError, fleet_path, path_of

sys.path.insert(0, str(Path(__file__).parent))
from world import World

PAUSE = "docker.io/local/pause:1"
BARE = Templates(serving_image=PAUSE, core_image=PAUSE, grace_seconds=1, bare=True)

Json = dict[str, Any]


def until(holds: Callable[[], Any], what: str, patience: float = 120.0) -> Any:
    """Waits until something is true and returns it."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {patience:.0f} s: {what}")


@pytest.fixture(scope="session", name="until")
def until_fixture() -> Callable[..., Any]:
    """Waits: ``until(lambda: holds, "what", patience)``."""
    return until


@pytest.fixture(scope="session")
def bare() -> Templates:
    """Pods of an image that only waits."""
    return BARE


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace of this module's own; gone afterwards."""
    name = f"h3-{uuid.uuid4().hex[:8]}"
    kube.create(path_of("namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    for thing in kube.get(fleet_path(name))["items"]:
        with contextlib.suppress(KubeError):
            kube.patch(fleet_path(name, thing["metadata"]["name"]), {"metadata": {"finalizers": None}})
    kube.delete(path_of("namespaces", None, name))


def fleet_object(namespace: str, name: str, **spec: Any) -> Json:
    """A ModelFleet that fits a small machine."""
    small = {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"memory": "16Mi"}}
    given = {"model": "intent", "capacityPerReplica": 40, "resources": small, "gateway": {"replicas": 1}, **spec}
    given = {key: value for key, value in given.items() if value is not None}
    # The label keeps an operator that runs on this cluster away.
    meta = {"namespace": namespace, "name": name, "labels": {OPERATOR: namespace}}
    return {"apiVersion": API_VERSION, "kind": "ModelFleet", "metadata": meta, "spec": given}


@pytest.fixture
def make_fleet(kube: Kube, namespace: str) -> Iterator[Callable[..., Json]]:
    """Creates ModelFleets: ``make_fleet(version=2)``; they are deleted at the end."""
    made: list[str] = []

    def make(name: str | None = None, **spec: Any) -> Json:
        chosen = name or f"f{uuid.uuid4().hex[:6]}"
        made.append(chosen)
        return kube.create(fleet_path(namespace), fleet_object(namespace, chosen, **spec))

    yield make
    for name in made:
        with contextlib.suppress(KubeError):
            kube.delete(fleet_path(namespace, name), gracePeriodSeconds=0)


@pytest.fixture(scope="module")
def cache(kube: Kube, namespace: str) -> Iterator[Cache]:
    """Watches of that namespace."""
    found = Cache(kube, namespace, lambda _fleet: None, namespace).start()
    until(lambda: found.synced, "the cluster was listed", 20)
    yield found
    found.stop()


@pytest.fixture
def actuator(kube: Kube, cache: Cache) -> KubernetesActuator:
    """With pods of an image that only waits."""
    return KubernetesActuator(kube, cache, BARE)


@pytest.fixture(scope="module")
def world(kube: Kube, namespace: str) -> Iterator[World]:
    """One operator that leads in this module's namespace."""
    found = World(kube, namespace, BARE, until)
    assert found.start().ready.wait(30)
    yield found
    found.stop()

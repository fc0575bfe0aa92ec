"""The node of a dead GPU, on a real API server: cordoned only where the fleet's owner and the RBAC allow it.

The node is only an object: the test says what a kubelet would say of the pods that were bound to it.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from rights import gateway_role, limited, may_cordon
from world import World

from autoscaler.operator.nodes import CORDONED_FOR
from trimtab.kube import Kube, KubeError, path_of

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
Make = Callable[..., Json]
SERVING_HERE = {"tolerations": [{"operator": "Exists"}]}


@pytest.fixture
def node(kube: Kube, namespace: str) -> Iterator[str]:
    """A node with GPUs; nothing but this test's pods may run there."""
    name = f"trimtab-test-{uuid.uuid4().hex[:6]}"
    taint = {"key": "trimtab.dev/test", "value": name, "effect": "NoExecute"}
    meta = {"name": name, "labels": {"trimtab.dev/test": name}}
    kube.create(path_of("nodes"), {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": [taint]}})
    room = {"cpu": "4", "memory": "8Gi", "pods": "20", "nvidia.com/gpu": "16"}
    ready = {"type": "Ready", "status": "True", "reason": "Test", "lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
    kube.patch(
        path_of("nodes", None, name, sub="status"), {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
    )
    stop = threading.Event()
    kubelet = threading.Thread(target=_kubelet, args=(kube, namespace, name, stop), daemon=True)
    kubelet.start()
    yield name
    stop.set()
    kubelet.join(10)
    kube.delete(path_of("nodes", None, name))
    for pod in _pods(kube, namespace, name):
        with contextlib.suppress(KubeError):
            kube.delete(path_of("pods", namespace, pod["metadata"]["name"]), gracePeriodSeconds=0)


def _kubelet(kube: Kube, namespace: str, node: str, stop: threading.Event) -> None:
    """Pods run as soon as they are bound, and end as soon as they are asked to."""
    while not stop.wait(0.3):
        with contextlib.suppress(Exception):  # the API server may be away for a moment
            for pod in _pods(kube, namespace, node):
                where = path_of("pods", namespace, pod["metadata"]["name"])
                if "deletionTimestamp" in pod["metadata"]:
                    kube.delete(where, gracePeriodSeconds=0)
                elif pod.get("status", {}).get("phase") != "Running":
                    yes = {"status": "True", "lastTransitionTime": _now()}
                    kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
                    status = {"phase": "Running", "conditions": [{"type": kind, **yes} for kind in kinds]}
                    kube.patch(f"{where}/status", {"status": status})


def _pods(kube: Kube, namespace: str, node: str) -> list[Json]:
    return list(kube.get(path_of("pods", namespace), fieldSelector=f"spec.nodeName={node}")["items"])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def one_on(world: World, make_fleet: Make, node: str) -> Callable[..., str]:
    """A fleet with one replica on that node, with a GPU."""

    def make(**remediation: Any) -> str:
        scheduling = {"nodeSelector": {"trimtab.dev/test": node}, **SERVING_HERE}
        name = str(make_fleet(scheduling=scheduling, gpu={"count": 1}, remediation=remediation)["metadata"]["name"])
        world.ready(name)
        return name

    return make


def sick(world: World, name: str, kind: str) -> None:
    """A finding about the fleet's replica; returns when that is out of the traffic and the operator has looked at its node."""
    world.find(name, kind=kind, target=world.pods(name)[0]["metadata"]["name"])
    world.until(lambda: world.pods(name, state="quarantined"), "quarantined")
    world.until(lambda: world.decisions(name, "quarantine"), "decided")


def test_a_node_is_cordoned_only_where_it_is_allowed(
    world: World, kube: Kube, namespace: str, node: str, one_on: Callable[..., str]
) -> None:
    world.stop()
    gateway_role(kube)
    assert world.start(limited(kube, namespace)).ready.wait(60)

    def cordoned() -> bool:
        return bool(kube.get(path_of("nodes", None, node))["spec"].get("unschedulable"))

    silent = one_on()
    sick(world, silent, "gpu_fault")
    _another_step(world, silent)
    assert not cordoned() and not {"NodeCordoned", "CordonFailed"} & set(world.events(silent))

    forbidden = one_on(cordonNodes=True)
    sick(world, forbidden, "gpu_fault")
    said = world.until(lambda: world.events(forbidden).get("CordonFailed"), "an Event")
    assert said["type"] == "Warning" and f"node {node} cannot be cordoned" in said["message"] and "forbidden" in said["message"]
    assert not cordoned()

    with may_cordon(kube, namespace):
        other_fault = one_on(cordonNodes=True)
        sick(world, other_fault, "replica_fault")
        _another_step(world, other_fault)
        assert not cordoned() and "NodeCordoned" not in world.events(other_fault)

        allowed = one_on(cordonNodes=True)
        sick(world, allowed, "gpu_fault")
        world.until(cordoned, "cordoned")
        assert kube.get(path_of("nodes", None, node))["metadata"]["annotations"][CORDONED_FOR] == f"{namespace}.{allowed}"
        event = world.until(lambda: world.events(allowed).get("NodeCordoned"), "an Event")
        assert event["type"] == "Warning" and node in event["message"]


def _another_step(world: World, name: str) -> None:
    """Waits until the operator has taken another step of this fleet: what it did not do by then, it does not do."""
    world.spec(name, slo={"p99Milliseconds": 251})
    generation = world.fleet(name)["metadata"]["generation"]
    world.until(lambda: world.status(name).get("observedGeneration") == generation, "another step")

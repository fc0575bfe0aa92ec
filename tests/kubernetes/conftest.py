"""Real fleets on a real cluster ($KUBECONFIG): Triton pods behind Envoy pods, made by the actuator as the operator makes them.

The images `trimtab-core:dev` and `trimtab-serving:dev` must be on the nodes (`make images`).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoscaler.actuators.kubernetes import KubernetesActuator
from autoscaler.actuators.kubernetes_cache import Cache
from autoscaler.actuators.kubernetes_pods import Templates
from trimtab.errors import Unavailable
from trimtab.kube import API_VERSION, Kube, KubeError, fleet_name, fleet_path, is_ready, path_of
from trimtab.messages import FleetPlan, PoolPlan, PoolRole

BASE = Path(__file__).parents[2] / "deploy/kubernetes/base"
NAME = "intent"

Json = dict[str, Any]


def until(holds: Callable[[], Any], what: str, patience: float = 180.0) -> Any:
    """Waits until something is true and returns it; an API server that is away is waited for."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with contextlib.suppress(KubeError, Unavailable):
            if found := holds():
                return found
        time.sleep(0.2)
    raise AssertionError(f"not within {patience:.0f} s: {what}")


@pytest.fixture(scope="session", name="until")
def until_fixture() -> Callable[..., Any]:
    """Waits: ``until(lambda: holds, "what", patience)``."""
    return until


@pytest.fixture(scope="session")
def kubectl() -> Callable[..., str]:
    """Runs kubectl and returns what it prints; a failure fails the test."""

    def run(*arguments: str, patience: int = 120) -> str:
        done = subprocess.run(["kubectl", *arguments], capture_output=True, text=True, timeout=patience)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def system(kube: Kube, kubectl: Callable[..., str]) -> Iterator[None]:
    """The whole system, up as documented (docs/kubernetes.md), and down as documented.

    With `TRIMTAB_E2E_KEEP` set, one that is up already is used, and stays.
    """
    keep = bool(os.environ.get("TRIMTAB_E2E_KEEP"))
    there = any(each["metadata"]["name"] == "trimtab" for each in kube.get(path_of("namespaces"))["items"])
    if there and not keep:
        pytest.skip("the system is installed on this cluster already: the test would take it down")
    if not there:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", str(BASE / "crd/modelfleet.yaml"))
        kubectl("wait", "--for=condition=Established", "crd/modelfleets.trimtab.dev")
        kubectl("apply", "-k", str(BASE.parent / "overlays/try"))
    try:
        yield
    finally:
        if not keep:
            kubectl("delete", "modelfleets", "--all", "-n", "trimtab-demo", "--timeout=180s", patience=200)
            kubectl("delete", "-k", str(BASE.parent / "overlays/try"), "--ignore-not-found", "--timeout=180s", patience=600)


@pytest.fixture(scope="session")
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace that holds pods to the standard `restricted`; gone afterwards."""
    name = f"gateway-e2e-{uuid.uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.create(path_of("namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    kube.delete(path_of("namespaces", None, name))


class LiveFleet:
    """A fleet that runs: plans go in, pods and pages come out."""

    def __init__(self, kube: Kube, namespace: str, actuator: KubernetesActuator) -> None:
        self.kube, self.namespace, self._actuator = kube, namespace, actuator

    def plan(self, *pools: tuple[int, PoolRole, int, int], quarantined: tuple[str, ...] = ()) -> None:
        """Pools as (version, role, replicas, weight)."""
        planned = [PoolPlan(version=v, role=role, replicas=n, weight=w) for v, role, n, w in pools]
        made = FleetPlan(
            fleet=fleet_name(self.namespace, NAME), decision=uuid.uuid4().hex, pools=planned, quarantined=list(quarantined)
        )
        self._actuator.apply(made)

    def pods(self, **labels: str) -> list[Json]:
        """Pods of the fleet that are not on their way out, by labels of trimtab.dev."""
        selector = ",".join(f"trimtab.dev/{key}={value}" for key, value in {"fleet": NAME, **labels}.items())
        found = self.kube.get(path_of("pods", self.namespace), labelSelector=selector)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, count: int, **labels: str) -> list[str]:
        """The names of exactly `count` ready pods with these labels, once there are so many."""

        def names() -> list[str] | None:
            there = [pod["metadata"]["name"] for pod in self.pods(**labels) if is_ready(pod)]
            return there if len(there) == count else None

        found: list[str] = until(names, f"{count} ready pods with {labels}")
        return found

    def page(self, pod: str, port: int, path: str) -> str:
        """A page of a pod, fetched by the API server."""
        where = path_of("pods", self.namespace, f"{pod}:{port}", sub=f"proxy{path}")
        answer = self.kube.open("GET", where, {})
        return str(answer.read().decode())

    def remove(self, pod: str) -> None:
        self.kube.delete(path_of("pods", self.namespace, pod))

    def traffic(self, seconds: int, rate: int = 20) -> Traffic:
        """Starts real traffic through the gateway's Service, from a pod."""
        return Traffic(self.kube, self.namespace, seconds, rate)


class Traffic:
    """A pod that sends requests for some seconds and then says what became of them."""

    def __init__(self, kube: Kube, namespace: str, seconds: int, rate: int) -> None:
        self._kube, self._namespace, self._seconds = kube, namespace, seconds
        self._name = f"traffic-{uuid.uuid4().hex[:6]}"
        container = {
            "name": "traffic",
            "image": Templates().serving_image,
            "command": ["tini", "--", "trimtab", "traffic", f"--url=http://{NAME}", f"--rate={rate}", f"--duration={seconds}"],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
        security = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": security,
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        }
        kube.create(
            path_of("pods", namespace),
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self._name}, "spec": spec},
        )
        until(lambda: self._phase() in ("Running", "Succeeded"), "the traffic runs")

    def _phase(self) -> str:
        return str(self._kube.get(path_of("pods", self._namespace, self._name))["status"].get("phase"))

    def summary(self) -> Json:
        """What the generator counted, once it has ended."""
        phase = until(lambda: self._phase() in ("Succeeded", "Failed") and self._phase(), "the traffic ends", self._seconds + 90)
        where = path_of("pods", self._namespace, self._name, sub="log")
        text = until(lambda: self._kube.open("GET", where, {}).read().decode(), "the traffic's log")
        assert phase == "Succeeded", text
        found: Json = json.loads(text[text.index("{") :])
        return found


@pytest.fixture(scope="session")
def fleet(kube: Kube, namespace: str) -> Iterator[LiveFleet]:
    """Two replicas of version 1 behind two gateways, all ready."""
    spec = {"model": "intent", "capacityPerReplica": 40, "resources": {"requests": {"cpu": "100m", "memory": "300Mi"}}}
    # An operator that runs on this cluster leaves a fleet of another instance alone.
    metadata = {"namespace": namespace, "name": NAME, "labels": {"trimtab.dev/operator": namespace}}
    kube.create(fleet_path(namespace), {"apiVersion": API_VERSION, "kind": "ModelFleet", "metadata": metadata, "spec": spec})
    cache = Cache(kube, namespace, lambda _fleet: None, namespace).start()
    until(lambda: cache.synced and cache.fleets.get(namespace, NAME), "the fleet is known")
    live = LiveFleet(kube, namespace, KubernetesActuator(kube, cache, Templates()))
    live.plan((1, "stable", 2, 100))
    live.ready(2, role="triton", state="serving")
    live.ready(2, role="gateway")
    yield live
    cache.stop()


@pytest.fixture(scope="session")
def traffic_in(kube: Kube) -> Callable[[str, int, int], Traffic]:
    """Starts traffic for a number of seconds, at a rate, to the fleet `intent` of a namespace."""
    return lambda namespace, seconds, rate: Traffic(kube, namespace, seconds, rate)

"""Pods that cost nothing: no scheduler takes them, and this process plays the kubelet, as KWOK does.

An admission policy of the benchmark's own gives every pod of its namespace the name of a scheduler that does not exist, and takes
the ports away, so that no collector takes the pods for something to read. Then their status is patched to Running and Ready.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from trimtab.errors import TrimtabError, Unavailable
from trimtab.kube import Kube, KubeError, Object, is_ready, path_of
from trimtab.kube_watch import Watcher

FLEET, ROLE, STATE = "trimtab.dev/fleet", "trimtab.dev/role", "trimtab.dev/state"
_API = "admissionregistration.k8s.io/v1"
_KINDS = ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies")


@contextlib.contextmanager
def unscheduled(kube: Kube, namespace: str) -> Iterator[None]:
    """As long as it is open, no scheduler takes the pods of this namespace. Needs the right to make admission policies."""
    policy, binding = _policy(namespace)
    for plural, thing in zip(reversed(_KINDS), (policy, binding), strict=True):
        kube.create(path_of(plural, api=_API), thing)
    try:
        _wait_in_force(kube, namespace)
        yield
    finally:
        for plural in _KINDS:
            with contextlib.suppress(TrimtabError):
                kube.delete(path_of(plural, None, namespace, api=_API))


class Kubelet:
    """Says of every pod of the namespace that it runs and is ready; notes when a pod's label first says that it is out."""

    def __init__(self, kube: Kube, namespace: str, hands: int = 4) -> None:
        self._kube, self._namespace = kube, namespace
        self._work: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._numbers = iter(range(1, 65_000))
        self.quarantined: dict[str, float] = {}
        """Name of a pod -> unix seconds at which the watch told it."""
        self._threads = [threading.Thread(target=self._play, daemon=True) for _ in range(hands)]
        self._watcher = Watcher(kube, path_of("pods", namespace), selector=FLEET, heard=self._heard)

    def start(self) -> Kubelet:
        """Begins."""
        for thread in self._threads:
            thread.start()
        self._watcher.start()
        return self

    def stop(self) -> None:
        """Ends; the pods stay as they are."""
        self._stop.set()
        self._watcher.stop()
        for thread in self._threads:
            thread.join(5.0)

    def ready(self, role: str) -> dict[str, str]:
        """Fleet (its Kubernetes name) -> one ready pod of this role that is in traffic."""
        found = {}
        for pod in self._watcher.objects.values():
            labels = pod["metadata"]["labels"]
            if labels.get(ROLE) == role and labels.get(STATE) != "quarantined" and is_ready(pod):
                found[str(labels[FLEET])] = str(pod["metadata"]["name"])
        return found

    def _heard(self, kind: str, pod: Object) -> None:
        meta = pod["metadata"]
        if kind == "DELETED" or "deletionTimestamp" in meta:
            return
        if meta["labels"].get(STATE) == "quarantined":
            self.quarantined.setdefault(str(meta["name"]), time.time())
        elif not is_ready(pod):
            self._work.put(str(meta["name"]))

    def _play(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Empty):
                name = self._work.get(timeout=0.2)
                pod = self._watcher.get(self._namespace, name)
                if pod is None or is_ready(pod):
                    continue
                try:
                    self._kube.patch(path_of("pods", self._namespace, name, sub="status"), self.running(pod))
                except KubeError:
                    continue  # it is gone
                except Unavailable:
                    self._stop.wait(1.0)
                    self._work.put(name)

    def running(self, pod: Object) -> Object:
        """The status of a pod that runs and is ready, with an address of its own."""
        number, now = next(self._numbers), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        address = f"100.64.{number >> 8}.{number & 255}"  # carrier-grade NAT space: nobody's pods
        true = [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        containers = [
            {
                "name": each["name"],
                "image": each["image"],
                "imageID": "",
                "ready": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for each in pod["spec"]["containers"]
        ]
        return {
            "status": {
                "phase": "Running",
                "podIP": address,
                "podIPs": [{"ip": address}],
                "startTime": now,
                "conditions": true,
                "containerStatuses": containers,
            }
        }


def _policy(namespace: str) -> tuple[Object, Object]:
    ports = "[0, 1].filter(i, i < size(object.spec.containers) && has(object.spec.containers[i].ports))"
    expression = (
        '[JSONPatch{op: "add", path: "/spec/schedulerName", value: "nobody"}] + '
        f'{ports}.map(i, JSONPatch{{op: "remove", path: "/spec/containers/" + string(i) + "/ports"}})'
    )
    spec: dict[str, Any] = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        },
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
    }
    meta = {"name": namespace}
    return (
        {"apiVersion": _API, "kind": "MutatingAdmissionPolicy", "metadata": meta, "spec": spec},
        {"apiVersion": _API, "kind": "MutatingAdmissionPolicyBinding", "metadata": meta, "spec": {"policyName": namespace}},
    )


def _wait_in_force(kube: Kube, namespace: str, patience: float = 30.0) -> None:
    container = {"name": "c", "image": "nothing", "ports": [{"containerPort": 1}]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": namespace},
        "spec": {"containers": [container]},
    }
    end, last = time.monotonic() + patience, ""
    while time.monotonic() < end:
        try:
            made = kube.request("POST", path_of("pods", namespace), {"dryRun": "All"}, pod)
            if made["spec"].get("schedulerName") == "nobody" and "ports" not in made["spec"]["containers"][0]:
                return
            last = "it changes nothing"
        except TrimtabError as error:  # the namespace's service account comes a moment after it
            last = str(error)
        time.sleep(0.2)
    raise Unavailable(f"the admission policy that keeps schedulers away is not in force after {patience:.0f} s: {last}")

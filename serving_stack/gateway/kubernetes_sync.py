"""`trimtab gateway-sync`: keeps Envoy's files in step with a ModelFleet's plan and its pods."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from serving_stack.gateway.files import write
from serving_stack.gateway.kubernetes import gateway_state, plan_of, replica_of, selector
from serving_stack.gateway.kubernetes_watch import ApiSource, Copy
from serving_stack.gateway.render import render
from trimtab.errors import SettingsError, Unavailable
from trimtab.messages import FleetPlan

log = logging.getLogger(__name__)


class Sync:
    """Writes what the two copies say. A plan that vanishes or cannot be read leaves the last one in force."""

    def __init__(self, fleet: str, name: str, folder: Path, fleets: Copy, pods: Copy) -> None:
        self._fleet, self._name, self._folder = fleet, name, folder
        self._fleets, self._pods = fleets, pods
        self._plan: FleetPlan | None = None

    def once(self) -> list[str]:
        """Bring the files up to date and return the names of those that changed; none until both copies are complete."""
        fleets, pods = self._fleets.objects(), self._pods.objects()
        if fleets is None or pods is None:
            return []
        try:
            self._plan = plan_of(fleets.get(self._name, {})) or self._plan
            replicas = [found for pod in pods.values() if (found := replica_of(pod)) is not None]
            files = render(gateway_state(self._fleet, self._plan, replicas), self._folder)
        except SettingsError as error:
            log.error("%s; the gateway keeps what it has", error)
            return []
        return write(self._folder, files)


def run(namespace: str, name: str, folder: Path, stop: threading.Event) -> None:
    """Runs until `stop`. Raises Unavailable when the files cannot be written or a watch ended by a mistake of its own."""
    from kubernetes.client import CoreV1Api, CustomObjectsApi

    changed, broken = threading.Event(), threading.Event()
    fleets = Copy(
        ApiSource(
            CustomObjectsApi().list_namespaced_custom_object,
            group="trimtab.dev",
            version="v1alpha1",
            namespace=namespace,
            plural="modelfleets",
            field_selector=f"metadata.name={name}",
        ),
        changed.set,
    )
    pods = Copy(
        ApiSource(CoreV1Api().list_namespaced_pod, namespace=namespace, label_selector=selector(name)),
        changed.set,
    )

    def guarded(follow: Callable[[threading.Event], None]) -> None:
        try:
            follow(stop)
        except Exception:
            log.exception("a watch ended")
            broken.set()
            changed.set()

    for copy in (fleets, pods):
        threading.Thread(target=guarded, args=(copy.follow,), daemon=True).start()
    sync = Sync(f"{namespace}_{name}", name, folder, fleets, pods)
    while not stop.is_set():
        if not changed.wait(1.0):
            continue
        changed.clear()
        if broken.is_set():
            raise Unavailable("a watch of the API server ended unexpectedly; see the log")
        began = time.monotonic()
        written = sync.once()
        if written:
            log.info("wrote %s in %.1f ms", ", ".join(written), 1000 * (time.monotonic() - began))

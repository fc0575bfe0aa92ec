"""A managed fleet in the cluster: Deployments per version, gateway, Service and budgets, all made and owned by the operator."""

from __future__ import annotations

import time

from autoscaler.actuators.kubernetes_cache import Cache
from autoscaler.actuators.kubernetes_objects import DIGEST, FIXED, fixed, gateway_deployment, path, replica_deployment
from autoscaler.actuators.kubernetes_pods import QUARANTINED, ROLE, STATE, VERSION, Json, Templates
from autoscaler.actuators.kubernetes_read import MANAGER, QUARANTINED_AT
from autoscaler.operator.fleet import Fleet
from trimtab.kube import Kube, KubeError, path_of
from trimtab.messages import FleetPlan

_AGAIN_SECONDS = 1800.0
"""How often Services and budgets are applied although nothing of them has changed: they are not watched."""


class Managed:
    """Acts on the objects of managed fleets; every method is idempotent and sends only what the cache shows to be missing."""

    def __init__(self, kube: Kube, cache: Cache, templates: Templates) -> None:
        self._kube, self._cache, self._templates = kube, cache, templates
        self._fixed_at: dict[str, float] = {}

    def deployments(self, fleet: Fleet) -> dict[int, Json]:
        """The Deployments of versions that are not being deleted."""
        found = {}
        for each in self._cache.deployments.of(fleet.namespace, fleet.name):
            labels = each["metadata"].get("labels") or {}
            if labels.get(ROLE) == "triton" and labels.get(VERSION, "").isdigit() and "deletionTimestamp" not in each["metadata"]:
                found[int(labels[VERSION])] = each
        return found

    def pods(self, fleet: Fleet) -> list[Json]:
        """The pods of replicas, those in quarantine too."""
        return [
            pod for pod in self._cache.pods.of(fleet.namespace, fleet.name) if pod["metadata"]["labels"].get(ROLE) == "triton"
        ]

    def others(self, fleet: Fleet) -> tuple[list[Json], list[Json]]:
        """Pods and Deployments of the gateway."""
        pods = self._cache.pods.of(fleet.namespace, fleet.name)
        deployments = self._cache.deployments.of(fleet.namespace, fleet.name)
        return (
            [pod for pod in pods if pod["metadata"]["labels"].get(ROLE) == "gateway"],
            [each for each in deployments if each["metadata"]["labels"].get(ROLE) == "gateway"],
        )

    def lacking(self, fleet: Fleet) -> bool:
        """Whether something is gone that no plan would bring back."""
        return not self.others(fleet)[1]

    def outdated(self, fleet: Fleet, plan: FleetPlan) -> bool:
        """Whether an object differs from what the spec says now, numbers of replicas aside."""
        _, gateways = self.others(fleet)
        if not gateways or not _same(gateways[0], gateway_deployment(fleet, self._templates)):
            return True
        held = self.deployments(fleet)
        made = {pool.version: replica_deployment(fleet, pool.version, pool.replicas, self._templates) for pool in plan.pools}
        return any(version in held and not _same(held[version], each) for version, each in made.items())

    def make(self, fleet: Fleet, plan: FleetPlan) -> None:
        """The fleet's objects as the plan says; versions in no pool are removed and drain."""
        self._make_fixed(fleet)
        held = self.deployments(fleet)
        for pool in plan.pools:
            wanted = replica_deployment(fleet, pool.version, pool.replicas, self._templates)
            known = held.get(pool.version)
            if known is None or not _same(known, wanted) or known["spec"].get("replicas") != pool.replicas:
                self._apply(wanted)
        for version in sorted(set(held) - {pool.version for pool in plan.pools}):
            self._remove(held[version])

    def take_out(self, fleet: Fleet, pod: Json) -> None:
        """Quarantine: the pod's ReplicaSet lets go of it and makes another; the gateway drops it. It belongs to the fleet now."""
        owner = {**fleet.owner, "controller": False}
        body = {
            "metadata": {
                "labels": {STATE: QUARANTINED},
                "annotations": {QUARANTINED_AT: f"{time.time():.3f}"},
                "ownerReferences": [owner],
                "uid": pod["metadata"]["uid"],
            }
        }
        where = path_of("pods", fleet.namespace, pod["metadata"]["name"])
        self._cache.pods.put(self._kube.patch(where, body, fieldManager=MANAGER))

    def forget(self, fleet_id: str) -> None:
        """The fleet is gone."""
        self._fixed_at.pop(fleet_id, None)

    def _make_fixed(self, fleet: Fleet) -> None:
        wanted = gateway_deployment(fleet, self._templates)
        _, gateways = self.others(fleet)
        known = gateways[0] if gateways else None
        annotations = (known["metadata"].get("annotations") or {}) if known else {}
        first = self._fixed_at.setdefault(fleet.id, time.monotonic())
        due = time.monotonic() - first > _AGAIN_SECONDS
        if due or annotations.get(FIXED) != wanted["metadata"]["annotations"][FIXED]:
            for thing in fixed(fleet):
                self._apply(thing)
            self._fixed_at[fleet.id] = time.monotonic()
        if known is None or not _same(known, wanted) or known["spec"].get("replicas") != wanted["spec"]["replicas"]:
            self._apply(wanted)

    def _apply(self, wanted: Json) -> None:
        answer = self._kube.apply(path(wanted), wanted, manager=MANAGER)
        if wanted["kind"] == "Deployment":
            self._cache.deployments.put(answer)

    def _remove(self, deployment: Json) -> None:
        meta = deployment["metadata"]
        try:
            self._kube.delete(
                path_of("deployments", meta["namespace"], meta["name"], api="apps/v1"), propagationPolicy="Background"
            )
        except KubeError as error:
            if error.status != 404:
                raise
        self._cache.deployments.drop(meta["namespace"], meta["name"])


def _same(known: Json, wanted: Json) -> bool:
    """By digests, and by the pod template's parts that others like to edit are left to server-side apply's owner: us."""
    kept, meant = known["metadata"].get("annotations") or {}, wanted["metadata"]["annotations"]
    return all(kept.get(key) == meant[key] for key in (DIGEST, FIXED) if key in meant)

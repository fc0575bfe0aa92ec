"""A fleet over Deployments of somebody else (`targetRef`): scaled by their scale sub-resource, healed by labels, never owned."""

from __future__ import annotations

import time

from autoscaler.actuators.kubernetes_cache import Cache, Shelf
from autoscaler.actuators.kubernetes_objects import with_weights
from autoscaler.actuators.kubernetes_pods import FLEET, QUARANTINED, ROLE, SERVING, STATE, VERSION, Json
from autoscaler.actuators.kubernetes_read import MANAGER, QUARANTINED_AT
from autoscaler.operator.fleet import Fleet
from trimtab.errors import SettingsError, Unavailable
from trimtab.kube import Kube, path_of
from trimtab.messages import FleetPlan

_ROUTES = "gateway.networking.k8s.io/v1"
_RELEASED = "trimtab-quarantined"
"""What a selector's first label becomes on a pod in quarantine, so that its ReplicaSet and its Service let go of it."""


class Target:
    """Acts on Deployments, pods and HTTPRoutes that exist already."""

    def __init__(self, kube: Kube, cache: Cache) -> None:
        self._kube, self._cache = kube, cache
        self._versions: dict[str, set[int]] = {}

    def deployments(self, fleet: Fleet) -> dict[int, Json]:
        """The Deployments of the versions in play: the spec's, the plan's, and those of pods that are there."""
        found = {}
        shelf, _ = self._shelves(fleet)
        plan = fleet.plan
        for version in {fleet.spec.version, *(pool.version for pool in (plan.pools if plan else []))}:
            known = shelf.get(fleet.namespace, fleet.spec.deployment_name(fleet.name, version))
            if known is not None:
                found[version] = known
        if not found:
            name = fleet.spec.deployment_name(fleet.name, fleet.spec.version)
            raise SettingsError(f"there is no Deployment {name} in namespace {fleet.namespace}: targetRef needs one that exists")
        return found

    def pods(self, fleet: Fleet) -> list[Json]:
        """Their pods, labelled with fleet and version as they are found; those in quarantine too."""
        _, shelf = self._shelves(fleet)
        held = self.deployments(fleet)
        found = []
        for pod in shelf.of(fleet.namespace, ""):
            labels = pod["metadata"].get("labels") or {}
            if labels.get(FLEET) == fleet.name and labels.get(STATE) == QUARANTINED:
                found.append(pod)
                continue
            for version, deployment in held.items():
                if _matches(deployment, labels):
                    found.append(_labelled(pod, version))
        return found

    def label(self, fleet: Fleet) -> None:
        """Puts the fleet's labels on pods that lack them: scrapers find replicas by them."""
        _, shelf = self._shelves(fleet)
        for name, want in self._unlabelled(fleet).items():
            where = path_of("pods", fleet.namespace, name)
            shelf.put(self._kube.patch(where, {"metadata": {"labels": want}}, fieldManager=MANAGER))

    def lacking(self, fleet: Fleet) -> bool:
        """Whether a pod lacks the fleet's labels."""
        return bool(self._unlabelled(fleet))

    def _unlabelled(self, fleet: Fleet) -> dict[str, dict[str, str]]:
        _, shelf = self._shelves(fleet)
        found = {}
        target = fleet.spec.target_ref
        for pod in self.pods(fleet):
            raw = shelf.get(fleet.namespace, pod["metadata"]["name"])
            have = (raw["metadata"].get("labels") or {}) if raw else {}
            role = target.role if target else "triton"
            want = {FLEET: fleet.name, VERSION: pod["metadata"]["labels"][VERSION], ROLE: role, STATE: have.get(STATE, SERVING)}
            if raw is not None and "deletionTimestamp" not in raw["metadata"] and any(have.get(k) != v for k, v in want.items()):
                found[str(pod["metadata"]["name"])] = want
        return found

    def others(self, fleet: Fleet) -> tuple[list[Json], list[Json]]:
        """There is no gateway of ours."""
        return [], []

    def outdated(self, fleet: Fleet, plan: FleetPlan) -> bool:
        """Nothing but numbers is ours."""
        return False

    def make(self, fleet: Fleet, plan: FleetPlan) -> None:
        """Replicas as the plan says, versions in no pool at 0, and the route's weights."""
        shelf, _ = self._shelves(fleet)
        planned = {pool.version: pool.replicas for pool in plan.pools}
        for version in planned:
            if shelf.get(fleet.namespace, fleet.spec.deployment_name(fleet.name, version)) is None:
                name = fleet.spec.deployment_name(fleet.name, version)
                raise SettingsError(f"there is no Deployment {name} in namespace {fleet.namespace} for version {version}")
        self._route(fleet, {pool.version: pool.weight for pool in plan.pools})
        # A name without {version} is one Deployment for all versions: there is none to be left at 0.
        several = fleet.spec.target_ref is not None and "{version}" in fleet.spec.target_ref.name
        seen = self._versions.setdefault(fleet.id, set())
        for version in sorted({*planned, *seen} if several else planned):
            name = fleet.spec.deployment_name(fleet.name, version)
            known = shelf.get(fleet.namespace, name)
            if known is not None and known["spec"].get("replicas") != planned.get(version, 0):
                where = path_of("deployments", fleet.namespace, name, api="apps/v1")
                self._kube.patch(f"{where}/scale", {"spec": {"replicas": planned.get(version, 0)}}, fieldManager=MANAGER)
                shelf.put(self._kube.get(where))
        seen.update(planned)
        self.label(fleet)

    def take_out(self, fleet: Fleet, pod: Json) -> None:
        """Quarantine by label: the first label of the Deployment's selector changes, and ReplicaSet and Service let go."""
        _, shelf = self._shelves(fleet)
        version = int(pod["metadata"]["labels"][VERSION])
        selector = self.deployments(fleet)[version]["spec"]["selector"].get("matchLabels") or {}
        if not selector:
            raise SettingsError(
                f"the Deployment of version {version} has no matchLabels in its selector: no pod can be taken out"
            )
        body = {
            "metadata": {
                "labels": {sorted(selector)[0]: _RELEASED, FLEET: fleet.name, VERSION: str(version), STATE: QUARANTINED},
                "annotations": {QUARANTINED_AT: f"{time.time():.3f}"},
                "ownerReferences": [{**fleet.owner, "controller": False}],
                "uid": pod["metadata"]["uid"],
            }
        }
        where = path_of("pods", fleet.namespace, pod["metadata"]["name"])
        shelf.put(self._kube.patch(where, body, fieldManager=MANAGER))

    def forget(self, fleet_id: str) -> None:
        """The fleet is gone."""
        self._versions.pop(fleet_id, None)

    def _route(self, fleet: Fleet, weights: dict[int, int]) -> None:
        routing = fleet.spec.routing
        if routing is None:
            return
        where = path_of("httproutes", fleet.namespace, routing.http_route, api=_ROUTES)
        known = self._versions.get(fleet.id, set())
        shares = {routing.service.replace("{version}", str(version)): weights.get(version, 0) for version in {*weights, *known}}
        changed = with_weights(self._kube.get(where), shares)
        if changed is not None:
            # With its resourceVersion: an edit by somebody else in between is met with a conflict, and tried again.
            self._kube.request("PUT", where, {"fieldManager": MANAGER}, changed)

    def _shelves(self, fleet: Fleet) -> tuple[Shelf, Shelf]:
        found = self._cache.also(fleet.namespace)
        if found is None:
            raise Unavailable(f"the Deployments and pods of namespace {fleet.namespace} are not known yet")
        return found


def _matches(deployment: Json, labels: dict[str, str]) -> bool:
    wanted = deployment["spec"]["selector"].get("matchLabels") or {}
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


def _labelled(pod: Json, version: int) -> Json:
    meta = pod["metadata"]
    return {**pod, "metadata": {**meta, "labels": {**(meta.get("labels") or {}), VERSION: str(version)}}}

"""The actuator for Kubernetes: observes fleets from what was last heard of the cluster, and makes plans true."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import msgspec

from autoscaler.actuators.base import check
from autoscaler.actuators.kubernetes_cache import Cache
from autoscaler.actuators.kubernetes_conflict import Conflicts
from autoscaler.actuators.kubernetes_managed import Managed
from autoscaler.actuators.kubernetes_pods import QUARANTINED, STATE, VERSION, Json, Templates
from autoscaler.actuators.kubernetes_read import Problem, foreign_scaler, is_ready, pools, problems
from autoscaler.actuators.kubernetes_status import StatusWriter
from autoscaler.actuators.kubernetes_target import Target
from autoscaler.operator.fleet import Fleet, read
from trimtab.errors import SettingsError, Unavailable
from trimtab.kube import Kube, KubeError, path_of
from trimtab.messages import FleetPlan, FleetState

_BLIND_SECONDS = 5.0


def _anybody() -> None:
    """Without leader election everybody may act."""


class KubernetesActuator:
    """See `Actuator`. Safe for several threads, one per fleet at a time.

    `guard` raises `Unavailable` when this process may not act; `term` numbers its leadership. A fleet's name is
    ``<namespace>_<name>``; its weights are what the ModelFleet's ``status.plan`` says, which the gateway follows.
    """

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        templates: Templates,
        guard: Callable[[], None] = _anybody,
        term: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube, self._cache, self._guard, self._clock = kube, cache, guard, clock
        self._managed, self._target = Managed(kube, cache, templates), Target(kube, cache)
        self.status = StatusWriter(kube, cache, guard, term)
        self.conflicts = Conflicts()
        self._refusals: dict[str, Problem] = {}
        self._known: dict[str, tuple[Json, Fleet]] = {}  # a step asks many times, and nothing has changed
        self._blind_since: float | None = None

    def fleet(self, fleet: str) -> Fleet:
        """The ModelFleet as last heard. Raises `SettingsError` when there is none."""
        namespace, _, name = fleet.partition("_")
        thing = self._cache.fleets.get(namespace, name)
        if thing is None:
            if not self._cache.synced:
                raise Unavailable("the cluster's objects are not listed yet")
            raise SettingsError(f"there is no ModelFleet {name} in namespace {namespace}")
        known = self._known.get(fleet)
        if known is not None and known[0] is thing:
            return known[1]
        found = read(thing, known[1] if known is not None else None)
        self._known[fleet] = (thing, found)
        return found

    def observe(self, fleet: str) -> FleetState:
        """See `Actuator`."""
        self._must_see()
        found = self.fleet(fleet)
        hands, plan, now = self._hands(found), found.plan, self._clock()
        planned = {pool.version: pool.replicas for pool in plan.pools} if plan else {}
        wanted = {
            version: self.conflicts.wanted(
                found.id, version, int(each["spec"].get("replicas") or 0), planned.get(version), foreign_scaler(each), now
            )
            for version, each in hands.deployments(found).items()
        }
        roles = {pool.version: (str(pool.role), pool.weight) for pool in plan.pools} if plan else {}
        return FleetState(fleet=fleet, time=now, pools=pools(roles, wanted, hands.pods(found), found.spec.version))

    def apply(self, plan: FleetPlan) -> None:
        """See `Actuator`. The gateway is told first: a replica leaves the traffic before it is touched."""
        check(plan)
        found = self.fleet(plan.fleet)
        with self._words(plan.fleet):
            self._guard()
            if found.plan != plan:
                self.status.write(found.namespace, found.name, {"plan": msgspec.to_builtins(plan)})
                found = self.fleet(plan.fleet)
            hands = self._hands(found)
            for version, each in hands.deployments(found).items():
                planned = next((pool.replicas for pool in plan.pools if pool.version == version), None)
                self.conflicts.corrected(
                    found.id, version, each["spec"].get("replicas"), planned, foreign_scaler(each), self._clock()
                )
            pods = hands.pods(found)
            for pod in pods:
                if pod["metadata"]["name"] in plan.quarantined and not _out(pod):
                    with _gone_is_fine():
                        hands.take_out(found, pod)
            hands.make(found, plan)
            for pod in pods:
                kept = pod["metadata"]["name"] in plan.quarantined and _version(pod) in {pool.version for pool in plan.pools}
                if _out(pod) and not kept:
                    self._delete(pod)

    def lacking(self, fleet: str) -> bool:
        """Whether something is gone or unlabelled that no plan would mend: `refresh` does."""
        found = self.fleet(fleet)
        return found.plan is not None and self._hands(found).lacking(found)

    def refresh(self, fleet: str) -> None:
        """Applies the plan in force again where the spec has changed what its objects are made from."""
        found = self.fleet(fleet)
        plan, hands = found.plan, self._hands(found)
        if found.spec.target_ref is not None:
            with self._words(fleet):
                self._guard()
                self._target.label(found)
        elif plan is not None and hands.outdated(found, plan):
            with self._words(fleet):
                self._guard()
                hands.make(found, plan)

    def tidy(self, fleet: str) -> None:
        """Deletes pods that were kept in quarantine for long enough."""
        found = self.fleet(fleet)
        keep = found.spec.remediation.keep_seconds
        for state in self.observe(fleet).pools:
            for replica in state.replicas:
                if replica.phase == "quarantined" and self._clock() - replica.since > keep:
                    with self._words(fleet):
                        self._guard()
                        self._delete({"metadata": {"namespace": found.namespace, "name": replica.name}})

    def remove(self, fleet: str) -> list[str]:
        """One step of taking a managed fleet down; returns what is still there. Others' Deployments stay as they are."""
        found = self.fleet(fleet)
        hands = self._hands(found)
        with self._words(fleet):
            self._guard()
            if found.spec.target_ref is not None:
                left = [pod for pod in self._cache.pods.of(found.namespace, found.name) if _out(pod)]
                for pod in left:
                    self._delete(pod)
                return [pod["metadata"]["name"] for pod in left]
            pods, gateways = hands.others(found)
            # The door first: what is inside may finish, nothing new comes in.
            for each in gateways:
                self._delete(each, "deployments", "apps/v1")
            if pods:
                return [pod["metadata"]["name"] for pod in pods]
            for each in hands.deployments(found).values():
                self._delete(each, "deployments", "apps/v1")
            left = hands.pods(found)
            for pod in left:
                if _out(pod):
                    self._delete(pod)
            return [pod["metadata"]["name"] for pod in left]

    def forget(self, fleet: str) -> None:
        """The fleet is gone."""
        self._managed.forget(fleet)
        self._target.forget(fleet)
        self.conflicts.forget(fleet)
        self._refusals.pop(fleet, None)
        self._known.pop(fleet, None)

    def problems(self, fleet: str) -> list[Problem]:
        """What keeps the fleet from being as planned."""
        found = self.fleet(fleet)
        hands = self._hands(found)
        pods, deployments = hands.others(found)
        refusal = self._refusals.get(fleet)
        try:
            seen = problems([*hands.pods(found), *pods], [*hands.deployments(found).values(), *deployments])
        except SettingsError as error:
            return [Problem("TargetMissing", str(error))]
        return [refusal, *seen] if refusal else seen

    def gateways_ready(self, fleet: Fleet) -> int | None:
        """Gateway pods that are ready; None for a fleet without a gateway of ours."""
        if fleet.spec.target_ref is not None:
            return None
        return sum(is_ready(pod) for pod in self._managed.others(fleet)[0])

    def node_of(self, fleet: Fleet, pod: str) -> str | None:
        """The node on which a replica runs."""
        found = next((each for each in self._hands(fleet).pods(fleet) if each["metadata"]["name"] == pod), None)
        return str(found["spec"].get("nodeName") or "") or None if found else None

    def _hands(self, fleet: Fleet) -> Managed | Target:
        return self._managed if fleet.spec.target_ref is None else self._target

    def _must_see(self) -> None:
        if not self._cache.synced:
            raise Unavailable(self._cache.problem or "the cluster's objects are not listed yet")
        problem = self._cache.problem
        if problem is None:
            self._blind_since = None
            return
        self._blind_since = self._blind_since or time.monotonic()
        # A watch that begins again within seconds is no news.
        if time.monotonic() - self._blind_since > _BLIND_SECONDS:
            raise Unavailable(f"the cluster is not seen: {problem}")

    def _delete(self, thing: Json, plural: str = "pods", api: str = "v1") -> None:
        meta = thing["metadata"]
        if "deletionTimestamp" in meta:
            return
        query = {"propagationPolicy": "Background"} if plural == "deployments" else {}
        with _gone_is_fine():
            self._kube.delete(path_of(plural, meta["namespace"], meta["name"], api=api), **query)

    @contextlib.contextmanager
    def _words(self, fleet: str) -> Iterator[None]:
        """The one boundary where the API's refusals become ours, and are kept until an act succeeds."""
        try:
            yield
        except KubeError as error:
            quota = "exceeded quota" in str(error)
            reason = {403: "QuotaExceeded" if quota else "Forbidden", 404: "NotFound", 409: "Conflict"}.get(
                error.status, "Refused"
            )
            self._refusals[fleet] = Problem(reason, str(error))
            if error.status in (400, 422):
                raise SettingsError(f"the Kubernetes API refuses the plan: {error}") from error
            raise Unavailable(f"the Kubernetes API refuses ({error.reason or error.status}): {error}") from error
        except SettingsError as error:
            self._refusals[fleet] = Problem("PlanRefused", str(error))
            raise
        except Unavailable as error:
            self._refusals[fleet] = Problem("ApiUnavailable", str(error))
            raise
        self._refusals.pop(fleet, None)


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except KubeError as error:
        if error.status != 404:
            raise


def _out(pod: Json) -> bool:
    return (pod["metadata"].get("labels") or {}).get(STATE) == QUARANTINED


def _version(pod: Json) -> int:
    return int((pod["metadata"].get("labels") or {}).get(VERSION) or 0)

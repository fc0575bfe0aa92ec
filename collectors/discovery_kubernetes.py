"""Which pods to scrape, from the Kubernetes API: watched, so a new pod is scraped within a second of getting its address.

A target is a pod with the label ``trimtab.dev/fleet`` and a container port named ``metrics``. Whether it is ready does not
matter: a sick pod is the one that must be looked at. One that is being deleted or has ended is no target any more.

    label trimtab.dev/role          role of the snapshots: triton, gateway, app, gpu, vllm, node
    label trimtab.dev/version       version of the model, where it has one; its pool comes from the ModelFleet's status.plan
    annotation prometheus.io/path   path of the page; default /metrics, for a gateway /stats/prometheus
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import get_args

from prometheus_client import Gauge

from collectors.discovery import TARGETS, Target
from trimtab.kube import Kube, Object, fleet_name, fleet_path, path_of
from trimtab.kube_watch import Watcher
from trimtab.messages import PoolRole, Role

log = logging.getLogger(__name__)

API_AWAY = Gauge("trimtab_collect_kubernetes_away", "1 while the Kubernetes API cannot be watched and the last targets are used.")

FLEET, ROLE, VERSION = "trimtab.dev/fleet", "trimtab.dev/role", "trimtab.dev/version"
_PORT = "metrics"
_PATHS: dict[Role, str] = {"gateway": "/stats/prometheus"}

Pools = Mapping[str, Mapping[int, PoolRole]]


def targets_of(pods: Iterable[Object], pools: Pools) -> tuple[list[Target], list[str]]:
    """The targets among the pods, ordered by fleet and name, and in words what is wrong with those that are none by mistake.

    `pools`: fleet -> version -> role of its pool.
    """
    targets, mistakes = [], []
    for pod in pods:
        found = _target(pod, pools)
        if isinstance(found, Target):
            targets.append(found)
        elif found is not None:
            meta = pod["metadata"]
            mistakes.append(f"pod {meta['namespace']}/{meta['name']} is not scraped: {found}")
    return sorted(targets, key=lambda target: (target.fleet, target.target)), sorted(mistakes)


def pools_of(fleets: Iterable[Object]) -> dict[str, dict[int, PoolRole]]:
    """The role of each version's pool, by fleet, from the plans in the ModelFleets' status; a plan nobody wrote has none."""
    return {fleet_name(each["metadata"]["namespace"], each["metadata"]["name"]): _plan(each) for each in fleets}


class KubernetesDiscovery:
    """The targets of a namespace, or of all (None). While the API is away the last ones are kept."""

    def __init__(self, kube: Kube, namespace: str | None) -> None:
        """Begins to watch; targets come as soon as the API answers."""
        self._news = threading.Event()
        self._pods = Watcher(kube, path_of("pods", namespace), selector=FLEET, changed=self._news.set).start()
        self._fleets = Watcher(kube, fleet_path(namespace), changed=self._news.set).start()
        self._targets: list[Target] = []
        self._mistakes: set[str] = set()

    @property
    def targets(self) -> list[Target]:
        """See `Source`."""
        return self._targets

    @property
    def problem(self) -> str | None:
        """Why the targets may be old, or their pools unknown, in words; None while all is watched."""
        return self._pods.problem or self._fleets.problem

    def refresh(self) -> bool:
        """See `Source`."""
        API_AWAY.set(self._pods.problem is not None)
        if not self._news.is_set():
            return False
        self._news.clear()
        targets, mistakes = targets_of(self._pods.objects.values(), pools_of(self._fleets.objects.values()))
        for mistake in set(mistakes) - self._mistakes:
            log.warning("%s", mistake)
        self._mistakes = set(mistakes)
        changed = targets != self._targets
        if changed:
            log.info("scraping %d targets", len(targets))
        self._targets = targets
        TARGETS.set(len(targets))
        return changed

    def close(self) -> None:
        """See `Source`."""
        self._pods.stop()
        self._fleets.stop()


def _target(pod: Object, pools: Pools) -> Target | str | None:
    """The target; None for a pod that is none now; words for one that is labelled wrongly."""
    meta, status = pod["metadata"], pod.get("status", {})
    labels, notes = meta.get("labels", {}), meta.get("annotations", {})
    address = status.get("podIP")
    if not address or "deletionTimestamp" in meta or status.get("phase") in ("Succeeded", "Failed"):
        return None
    port = _port(pod)
    if port is None:
        return None
    role: Role | None = next((each for each in get_args(Role) if each == labels.get(ROLE)), None)
    if role is None:
        return f"label {ROLE} is {labels.get(ROLE)!r} and not one of {', '.join(get_args(Role))}"
    version = labels.get(VERSION)
    if version is not None and not (version.isascii() and version.isdigit()):
        return f"label {VERSION} is {version!r} and not a whole number"
    number = None if version is None else int(version)
    path = notes.get("prometheus.io/path") or _PATHS.get(role, "/metrics")
    if not path.startswith("/"):
        return f"annotation prometheus.io/path is {path!r} and does not begin with '/'"
    fleet = fleet_name(meta["namespace"], labels.get(FLEET, ""))
    host = f"[{address}]" if ":" in address else address
    pool = pools.get(fleet, {}).get(number) if number is not None else None
    return Target(meta["name"], f"http://{host}:{port}{path}", fleet, role, pool, number)


def _port(pod: Object) -> int | None:
    spec = pod.get("spec", {})
    for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:  # a sidecar is an init container that stays
        for port in container.get("ports", []):
            if port.get("name") == _PORT:
                return int(port["containerPort"])
    return None


def _plan(fleet: Object) -> dict[int, PoolRole]:
    plan = (fleet.get("status") or {}).get("plan")
    pools = plan.get("pools") if isinstance(plan, dict) else None
    roles: dict[int, PoolRole] = {}
    for pool in pools or []:
        role: PoolRole | None = next((each for each in get_args(PoolRole) if each == pool.get("role")), None)
        if role is not None and isinstance(pool.get("version"), int):
            roles[pool["version"]] = role
    return roles

"""From pods and Deployments as the API gives them to replicas, and to what is wrong with them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from autoscaler.actuators.kubernetes_pods import QUARANTINED, SERVING, STATE, VERSION, Json
from trimtab import kube
from trimtab.messages import PoolState, ReplicaPhase, ReplicaState

MANAGER = "trimtab"
"""The field manager of everything that the operator applies."""
QUARANTINED_AT = "trimtab.dev/quarantined-at"

_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_WORDS = 400


class Problem(NamedTuple):
    """Something that keeps a fleet from being as planned: a CamelCase reason and words."""

    reason: str
    message: str


def replica(pod: Json, weight: int, version: int | None = None) -> ReplicaState:
    """A pod as a replica. `weight`: of its pool; `version`: where its label does not say it."""
    phase, since, error = _phase(pod)
    label = _labels(pod).get(VERSION)
    serving = phase == "ready" and weight > 0 and _labels(pod).get(STATE, SERVING) == SERVING
    return ReplicaState(
        name=pod["metadata"]["name"],
        version=version if version is not None else int(label or 0),
        phase=phase,
        since=since,
        in_traffic=serving,
        error=error,
    )


def pools(
    roles: dict[int, tuple[str, int]], wanted: dict[int, int], pods: Iterable[Json], serves: int, version: int | None = None
) -> list[PoolState]:
    """The pools of a fleet. `roles`: version -> (role, weight) as planned; `serves`: the stable version where no plan says it."""
    listed = list(pods)
    versions = {int(_labels(pod).get(VERSION) or 0) if version is None else version for pod in listed}
    found = []
    for each in sorted({*roles, *wanted, *versions}):
        role, weight = roles.get(each, ("stable" if not roles and each == serves else "previous", 0))
        replicas = [
            replica(pod, weight, version) for pod in listed if version is not None or _labels(pod).get(VERSION) == str(each)
        ]
        found.append(
            PoolState(
                version=each,
                role=role,  # type: ignore[arg-type]
                weight=weight,
                wanted=wanted.get(each, 0),
                replicas=sorted(replicas, key=lambda one: (one.since, one.name)),
            )
        )
    return found


def problems(pods: Iterable[Json], deployments: Iterable[Json]) -> list[Problem]:
    """What keeps pods from running, each reason once."""
    found: dict[str, Problem] = {}
    for deployment in deployments:
        for condition in deployment.get("status", {}).get("conditions", []):
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                message = str(condition.get("message", ""))
                reason = "QuotaExceeded" if "exceeded quota" in message else "PodsRefused"
                found.setdefault(reason, Problem(reason, message[:_WORDS]))
    for pod in pods:
        problem = _problem(pod) if "deletionTimestamp" not in pod["metadata"] else None
        if problem is not None:
            found.setdefault(problem.reason, problem)
    return list(found.values())


def foreign_scaler(deployment: Json) -> str | None:
    """Who else set the Deployment's number of replicas last; None when it was the operator, or nobody says."""
    for entry in deployment["metadata"].get("managedFields", []):
        owns = "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        if owns and entry.get("manager") != MANAGER:
            return str(entry.get("manager"))
    return None


def seconds(time: str) -> float:
    """A moment of the API as unix seconds."""
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()


def is_ready(pod: Json) -> bool:
    """Ready and not on its way out."""
    return "deletionTimestamp" not in pod["metadata"] and kube.is_ready(pod)


def _phase(pod: Json) -> tuple[ReplicaPhase, float, str | None]:
    meta, status = pod["metadata"], pod.get("status", {})
    created = seconds(meta["creationTimestamp"])
    if "deletionTimestamp" in meta:
        return "draining", seconds(meta["deletionTimestamp"]) - float(meta.get("deletionGracePeriodSeconds") or 0), None
    if _labels(pod).get(STATE) == QUARANTINED:
        return "quarantined", float((meta.get("annotations") or {}).get(QUARANTINED_AT, created)), None
    if status.get("phase") in ("Failed", "Succeeded"):
        return (
            "failed",
            _ended(pod) or created,
            _failure(pod) or str(status.get("message") or status.get("reason") or "the pod ended"),
        )
    if any(_waiting(each) == "CrashLoopBackOff" for each in _containers(pod)):
        return "failed", _ended(pod) or created, _failure(pod)
    ready = kube.condition(pod, "Ready")
    if ready.get("status") == "True":
        return "ready", seconds(ready.get("lastTransitionTime") or meta["creationTimestamp"]), None
    problem = _problem(pod)
    return "starting", created, problem.message if problem else None


def _problem(pod: Json) -> Problem | None:
    name = pod["metadata"]["name"]
    scheduled = kube.condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        message = str(scheduled.get("message", ""))
        reason = "GpuUnavailable" if "gpu" in message.lower() or "nvidia" in message.lower() else "Unschedulable"
        return Problem(reason, f"no node can run {name}: {message}"[:_WORDS])
    for each in _containers(pod):
        waiting = _waiting(each)
        message = str(each.get("state", {}).get("waiting", {}).get("message") or waiting)
        if waiting in _PULL:
            return Problem("ImagePullFailed", f"{each.get('image')} cannot be pulled for {name}: {message}"[:_WORDS])
        if waiting in _CONFIG:
            return Problem("PodConfigInvalid", f"{name} cannot be started: {message}"[:_WORDS])
        if waiting == "CrashLoopBackOff":
            version = _labels(pod).get(VERSION, "?")
            return Problem("VersionFailed", f"version {version} does not run ({name}): {_failure(pod)}"[:_WORDS])
    return None


def _failure(pod: Json) -> str | None:
    for each in _containers(pod):
        for state in (each.get("state", {}), each.get("lastState", {})):
            ended = state.get("terminated")
            if ended:
                said = " ".join(str(ended.get("message") or ended.get("reason") or "").split()[-60:])
                return f"{each['name']} exited with {ended.get('exitCode')}{': ' + said if said else ''}"[:_WORDS]
    return None


def _ended(pod: Json) -> float | None:
    times = [
        state["terminated"].get("finishedAt")
        for each in _containers(pod)
        for state in (each.get("state", {}), each.get("lastState", {}))
        if state.get("terminated")
    ]
    return max((seconds(time) for time in times if time), default=None)


def _containers(pod: Json) -> list[Json]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _waiting(container: Json) -> str | None:
    reason = container.get("state", {}).get("waiting", {}).get("reason")
    return str(reason) if reason else None


def _labels(thing: Json) -> dict[str, str]:
    return dict(thing["metadata"].get("labels") or {})

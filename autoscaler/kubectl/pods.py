"""A replica's or gateway's pod as people look at it."""

from __future__ import annotations

from typing import Literal

import msgspec

from autoscaler.kubectl.cluster import STATE, VERSION
from trimtab.kube import Object, is_ready

State = Literal["serving", "starting", "quarantined", "leaving", "ended"]


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """`trouble` says in a few words what Kubernetes knows to be wrong; None: nothing. `created` is RFC 3339."""

    name: str
    role: str | None
    version: int | None
    state: State
    ready: bool
    restarts: int
    node: str | None
    created: str | None
    trouble: str | None


def pod_of(thing: Object) -> Pod:
    """The pod as the API gave it."""
    meta, status = thing["metadata"], thing.get("status") or {}
    labels = meta.get("labels") or {}
    version = labels.get(VERSION, "")
    ready = is_ready(thing)
    containers = status.get("containerStatuses") or []
    return Pod(
        name=meta["name"],
        role=labels.get("trimtab.dev/role"),
        version=int(version) if version.isascii() and version.isdigit() else None,
        state=_state(thing, ready),
        ready=ready,
        restarts=sum(int(each.get("restartCount", 0)) for each in containers),
        node=(thing.get("spec") or {}).get("nodeName"),
        created=meta.get("creationTimestamp"),
        trouble=_trouble(status),
    )


def _state(thing: Object, ready: bool) -> State:
    meta, phase = thing["metadata"], (thing.get("status") or {}).get("phase")
    if meta.get("deletionTimestamp"):
        return "leaving"
    if (meta.get("labels") or {}).get(STATE) == "quarantined":
        return "quarantined"
    if phase in ("Succeeded", "Failed"):
        return "ended"
    return "serving" if ready else "starting"


def _trouble(status: Object) -> str | None:
    for each in status.get("containerStatuses") or []:
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        ended = (each.get("state") or {}).get("terminated") or (each.get("lastState") or {}).get("terminated") or {}
        if ended and ended.get("exitCode"):
            return f"container {each.get('name')} ended with {ended['exitCode']} ({ended.get('reason', 'Error')})"
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}".rstrip(": ")
    return str(status["message"]) if status.get("message") else None

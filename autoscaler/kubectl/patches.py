"""What people may ask of a fleet, as patches of its ModelFleet; and waiting for the operator's answer.

A wish that belongs to the owner's intention is a change of the spec: pause, release, override. One that is done once is an
annotation with an id, which the operator answers in ``status.requests``: rollback, promote, quarantine.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, TypeVar

from autoscaler.kubectl.cluster import Cluster
from autoscaler.kubectl.fleets import Answer, Fleet
from trimtab.errors import Missing, TrimtabError
from trimtab.kube import Object

Kind = Literal["rollback", "promote", "quarantine"]
Found = TypeVar("Found")

RELEASED_AT = "trimtab.dev/released-at"
_LOOK_SECONDS = 0.3


def paused(value: bool) -> Object:
    """Nothing is done any more, or again."""
    return {"spec": {"paused": value}}


def release(version: int, now: float, *, again: bool = False) -> Object:
    """Another version should serve. `again`: also one that was rolled back and is in the spec already."""
    body: Object = {"spec": {"version": version}}
    if again:
        body["metadata"] = {"annotations": {RELEASED_AT: rfc3339(now)}}
    return body


def override(replicas: int, until: float) -> Object:
    """A size of the serving pool that holds until a moment."""
    return {"spec": {"override": {"replicas": replicas, "until": rfc3339(until)}}}


def no_override() -> Object:
    """The size follows demand again."""
    return {"spec": {"override": None}}


def request(kind: Kind, now: float, by: str, *, version: int | None = None, pod: str | None = None) -> tuple[str, Object]:
    """The id of a request, and the patch that makes it."""
    name = secrets.token_hex(6)
    what: dict[str, object] = {"id": name, "at": round(now, 3), "by": by}
    what |= {"pod": pod} if pod else {"version": version}
    return name, {"metadata": {"annotations": {f"trimtab.dev/request-{kind}": json.dumps(what)}}}


def version_to_roll_back(fleet: Fleet) -> int:
    """The version that a rollback without a version means: the one on trial, or in the guard the one that was just promoted."""
    if fleet.canary_version is not None:
        return fleet.canary_version
    if fleet.version is not None and any(each.role == "previous" for each in fleet.versions):
        return fleet.version
    raise Missing(
        f"no version of fleet '{fleet.name}' is on trial and none is kept warm, so there is nothing to roll back to; "
        f"release another one: kubectl trimtab release {fleet.name} --version N"
    )


def version_to_promote(fleet: Fleet) -> int:
    """The version on trial."""
    if fleet.canary_version is None:
        raise Missing(f"no version of fleet '{fleet.name}' is on trial (version {fleet.version or 'unknown'} serves)")
    return fleet.canary_version


def wait_for_answer(cluster: Cluster, fleet: str, name: str, timeout: float) -> Answer:
    """The operator's answer to a request. Raises `TrimtabError` when none comes within `timeout` seconds."""
    found = _wait(lambda: next((each for each in cluster.fleet(fleet).requests if each.id == name), None), timeout)
    if found is None:
        what = f"the operator has not answered request {name}"
        raise TrimtabError(_silence(cluster.fleet(fleet), f"{what} within {timeout:.0f} s; it stands and may still be met"))
    return found


def wait_for_notice(cluster: Cluster, fleet: str, timeout: float) -> Fleet:
    """The fleet once the operator has seen its newest spec. Raises `TrimtabError` after `timeout` seconds."""

    def noticed() -> Fleet | None:
        seen = cluster.fleet(fleet)
        return seen if seen.up_to_date else None

    found = _wait(noticed, timeout)
    if found is None:
        what = f"the change is made, but the operator has not taken notice of it within {timeout:.0f} s"
        raise TrimtabError(_silence(cluster.fleet(fleet), what))
    return found


def rfc3339(at: float) -> str:
    """Unix seconds as the API writes times."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _wait(look: Callable[[], Found | None], timeout: float) -> Found | None:
    end = time.monotonic() + timeout
    while True:
        found = look()
        if found is not None or time.monotonic() >= end:
            return found
        time.sleep(_LOOK_SECONDS)


def _silence(fleet: Fleet, what: str) -> str:
    """What hinders the operator, if it said so; else whether it is there at all."""
    trouble = next((each.message for each in fleet.conditions if each.type == "Degraded" and each.status == "True"), None)
    if trouble:
        return f"{what}; what it said last: {trouble}"
    return f"{what}; is it running? (kubectl get pods -A -l app.kubernetes.io/name=trimtab-operator)"

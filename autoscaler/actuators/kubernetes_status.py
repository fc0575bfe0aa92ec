"""Writes a ModelFleet's status, fenced: of two operators only the leader of the newest term can."""

from __future__ import annotations

from collections.abc import Callable

from autoscaler.actuators.kubernetes_cache import Cache
from autoscaler.actuators.kubernetes_pods import Json
from trimtab.errors import Unavailable
from trimtab.kube import Kube, KubeError, fleet_path

_TRIES = 6


class Superseded(Unavailable):
    """What this process knows of a fleet is not the newest: it must be read again before anything is decided."""


class StatusWriter:
    """`guard` raises `Unavailable` when this process may not act; `term` is the number of its leadership."""

    def __init__(self, kube: Kube, cache: Cache, guard: Callable[[], None], term: Callable[[], int]) -> None:
        self._kube, self._cache, self._guard, self._term = kube, cache, guard, term

    def write(self, namespace: str, name: str, changes: Json) -> None:
        """Merges `changes` into the status; None removes a field.

        The write holds only if nobody wrote since this process last read: a former leader's write, however late, meets either
        a newer version or a newer term. Raises `Unavailable`, or `KubeError` when it is refused for good.
        """
        for _ in range(_TRIES):
            self._guard()
            known = self._cache.fleets.get(namespace, name)
            if known is None:
                raise KubeError(404, "NotFound", f"there is no ModelFleet {name} in namespace {namespace}")
            term = self._term()
            if int(known.get("status", {}).get("term") or 0) > term:
                raise Unavailable(f"another operator leads now (term {known['status']['term']}, this one has {term})")
            body = {"metadata": {"resourceVersion": known["metadata"]["resourceVersion"]}, "status": {**changes, "term": term}}
            try:
                answer = self._kube.patch(fleet_path(namespace, name, sub="status"), body, fieldManager="trimtab")
            except KubeError as error:
                if error.status != 409:
                    raise
                fresh = self._kube.get(fleet_path(namespace, name))
                self._cache.fleets.put(fresh)
                if fresh.get("status", {}).get("memory") != known.get("status", {}).get("memory"):
                    raise Superseded(f"the memory of {namespace}/{name} was written by somebody else") from error
                continue
            self._cache.fleets.put(answer)
            return
        raise Unavailable(f"the status of {namespace}/{name} changes faster than it can be written")

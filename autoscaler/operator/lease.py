"""Leader election with a coordination.k8s.io Lease, as client-go does it, and the fence that every act passes.

Times of other machines are never compared: a Lease is expired when *this* process saw it unchanged for its whole duration.
A leader that could not renew for `renew_seconds`, which is less than the duration, stops to act before anybody else begins.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from trimtab.errors import TrimtabError, Unavailable
from trimtab.kube import Kube, KubeError, Object, path_of

log = logging.getLogger(__name__)

_API = "coordination.k8s.io/v1"


class Lease:
    """This process's claim to lead, under an `identity` that no other process ever has.

    `run` claims and renews in the caller's thread; `guard` may be called from any.
    """

    def __init__(
        self, kube: Kube, namespace: str, name: str, identity: str, *, lease: float = 7.0, renew: float = 5.5, retry: float = 1.0
    ) -> None:
        self._kube, self._namespace, self._name, self._identity = kube, namespace, name, identity
        self._duration, self._renew, self._retry = lease, renew, retry
        self._seen: tuple[str, float] = ("", 0.0)
        self._renewed: float | None = None
        self._term = 0
        self.holder = ""

    @property
    def term(self) -> int:
        """Number of this leadership; every newer leader has a higher one."""
        return self._term

    @property
    def leads(self) -> bool:
        """Whether this process leads and renewed recently enough to act."""
        return self._renewed is not None and time.monotonic() - self._renewed < self._renew

    def guard(self) -> None:
        """Raises `Unavailable` when this process may not act."""
        if not self.leads:
            raise Unavailable(f"this operator ({self._identity}) does not lead; {self.holder or 'nobody'} does")

    def run(self, stop: threading.Event, started: Callable[[], None]) -> None:
        """Waits for the leadership, calls `started`, and renews; returns when the leadership is lost or `stop` is set.

        After `stop` the Lease is held for a last moment: whoever has ended its work gives it up with `release`.
        """
        while not stop.is_set() and not self._try():
            stop.wait(self._retry)
        if stop.is_set():
            return
        log.info("%s leads (term %d)", self._identity, self._term)
        started()
        while self.leads and not stop.wait(self._retry):
            self._try()
        if not stop.is_set():
            log.warning("%s lost the lease", self._identity)

    def release(self) -> None:
        """Gives the Lease up, if it is held, so that another operator takes over at once."""
        if self._renewed is None:
            return
        self._renewed, self.holder = None, ""
        try:
            found = self._kube.get(self._path())
            if found["spec"].get("holderIdentity") == self._identity:
                found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
                self._kube.request("PUT", self._path(), {}, found)
        except TrimtabError as error:
            log.info("the lease is not given up, it expires: %s", error)

    def _try(self) -> bool:
        began = time.monotonic()  # what counts is when the request was sent, not when its answer came
        try:
            held = self._claim()
        except TrimtabError as error:
            log.warning("the lease cannot be %s: %s", "renewed" if self._renewed is not None else "claimed", error)
            return False
        if held:
            self._renewed = began
        elif self._renewed is not None:
            self._renewed = None  # somebody else holds it
        return held

    def _claim(self) -> bool:
        try:
            found = self._kube.get(self._path())
        except KubeError as error:
            if error.status != 404:
                raise
            self._take(self._kube.create(path_of("leases", self._namespace, api=_API), self._lease(None)))
            return True
        spec = found.get("spec", {})
        self.holder = str(spec.get("holderIdentity") or "")
        stamp = f"{found['metadata']['resourceVersion']}"
        if stamp != self._seen[0]:
            self._seen = (stamp, time.monotonic())
        mine = self.holder == self._identity
        duration = max(float(spec.get("leaseDurationSeconds") or 0), self._duration)
        if self.holder and not mine and time.monotonic() - self._seen[1] < duration:
            return False
        try:
            self._take(self._kube.request("PUT", self._path(), {}, self._lease(found)))
        except KubeError as error:
            if error.status == 409:
                return False  # somebody was faster
            raise
        return True

    def _take(self, lease: Object) -> None:
        self._term = int(lease["spec"].get("leaseTransitions") or 0) + 1
        self._seen = (str(lease["metadata"]["resourceVersion"]), time.monotonic())
        self.holder = self._identity

    def _lease(self, found: Object | None) -> Object:
        spec = dict((found or {}).get("spec", {}))
        renewing = spec.get("holderIdentity") == self._identity and self._renewed is not None
        transitions = int(spec.get("leaseTransitions") or 0)
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._duration)),
            "renewTime": _now(),
            "acquireTime": spec.get("acquireTime") if renewing else _now(),
            "leaseTransitions": transitions if renewing or found is None else transitions + 1,
        }
        meta = found["metadata"] if found else {"name": self._name, "namespace": self._namespace}
        return {"apiVersion": _API, "kind": "Lease", "metadata": meta, "spec": spec}

    def _path(self) -> str:
        return path_of("leases", self._namespace, self._name, api=_API)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

"""What kopf tells the operator: ModelFleets that come, change and go. A deleted one is drained before its finalizer goes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Protocol

import kopf

from autoscaler.actuators.kubernetes_cache import OPERATOR
from autoscaler.operator.settings import OperatorSettings
from trimtab.errors import TrimtabError
from trimtab.kube import Kube

FINALIZER = "trimtab.dev/drain"


def finalizer(instance: str) -> str:
    """Of one operator instance: kopf takes its finalizer off objects that are not its own, and must not take another's."""
    return f"{FINALIZER}-{instance}" if instance else FINALIZER


class Follower(Protocol):
    """Who looks after fleets."""

    def follow(self, namespace: str, name: str) -> None:
        """A ModelFleet is there, or has changed."""

    def drain(self, namespace: str, name: str) -> list[str]:
        """One step of taking a fleet down; what is still there."""

    def forget(self, namespace: str, name: str) -> None:
        """A fleet is gone."""


def registry(kube: Kube, follower: Follower, chosen: OperatorSettings) -> kopf.OperatorRegistry:
    """The handlers."""
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return credentials(kube)

    where = ("trimtab.dev", "v1alpha1", "modelfleets")
    mine: dict[str, Any] = {OPERATOR: chosen.instance or kopf.ABSENT}

    @kopf.on.resume(*where, labels=mine, registry=found)
    @kopf.on.create(*where, labels=mine, registry=found)
    @kopf.on.update(*where, labels=mine, registry=found)
    def follow(namespace: str | None, name: str, **_: Any) -> None:
        with _later():
            follower.follow(str(namespace), name)

    @kopf.on.delete(*where, labels=mine, registry=found)
    def drain(namespace: str | None, name: str, runtime: timedelta, **_: Any) -> None:
        with _later():
            left = follower.drain(str(namespace), name)
        if left and runtime.total_seconds() < chosen.drain_seconds:
            raise kopf.TemporaryError(f"{len(left)} are still there: {', '.join(sorted(left)[:5])}", delay=1)
        follower.forget(str(namespace), name)

    return found


@contextlib.contextmanager
def _later() -> Iterator[None]:
    """What is away now is tried again soon, without a traceback."""
    try:
        yield
    except TrimtabError as error:
        raise kopf.TemporaryError(str(error), delay=2) from error


def credentials(kube: Kube) -> kopf.ConnectionInfo:
    """The same as ours. kopf asks again when they are refused, and a token that was renewed meanwhile is read anew."""
    config = kube.configuration
    header = config.get_api_key_with_prefix("BearerToken") or config.get_api_key_with_prefix("authorization") or ""
    scheme, _, token = header.rpartition(" ")
    return kopf.ConnectionInfo(
        server=config.host,
        ca_path=config.ssl_ca_cert,
        insecure=not config.verify_ssl,
        username=config.username or None,
        password=config.password or None,
        scheme=scheme or None,
        token=token or None,
        certificate_path=config.cert_file,
        private_key_path=config.key_file,
    )


def settings(instance: str) -> kopf.OperatorSettings:
    """Quiet (decisions have Events of their own), and with our names on what kopf keeps."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.scanning.disabled = True  # the CRD is there: no right to list CRDs and namespaces is needed
    found.persistence.finalizer = finalizer(instance)
    found.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="trimtab.dev")
    found.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="trimtab.dev", key="last-handled")
    found.watching.server_timeout = 60
    found.watching.client_timeout = 75
    found.networking.request_timeout = 15
    found.execution.max_workers = 8
    return found


def run(kube: Kube, follower: Follower, chosen: OperatorSettings, stop: threading.Event, failed: Callable[[str], None]) -> None:
    """Runs kopf in the caller's thread until `stop` is set; `failed` is told when it ends by itself."""
    scope: dict[str, Any] = {"namespaces": [chosen.namespace]} if chosen.namespace else {"clusterwide": True}

    async def operator() -> None:
        await kopf.operator(
            registry=registry(kube, follower, chosen),
            settings=settings(chosen.instance),
            standalone=True,
            stop_flag=stop,
            **scope,
        )

    try:
        asyncio.run(operator())
    except Exception as error:  # kopf ends with whatever one of its tasks ended with
        failed(f"kopf ended: {error!r}")
        return
    if not stop.is_set():
        failed("kopf ended by itself")

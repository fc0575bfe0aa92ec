"""Keeps a copy of some Kubernetes objects: a list, then a watch, for ever. Goes on with what it has while the API is away."""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

log = logging.getLogger(__name__)

Json = dict[str, Any]

WATCH_SECONDS = 60
"""How long the API server is asked to keep one watch open; then it is opened anew where it ended."""
SILENCE_SECONDS = 75
"""A connection that says nothing for longer, not even that the watch is over, is dead."""
CONNECT_SECONDS = 3
BACKOFF_MOST_SECONDS = 5.0


class Gone(Exception):
    """The place in the history that a watch wanted to go on from is no longer kept: list again."""


class Source(Protocol):
    """One kind of objects in the API; raises `OSError` when the API does not answer, `Gone` as said there."""

    def listed(self) -> tuple[list[Json], str]:
        """All objects, and the resource version to watch from."""

    def watched(self, version: str) -> Iterator[tuple[str, Json]]:
        """Events (ADDED, MODIFIED, DELETED, BOOKMARK; object) after `version`, until the server ends the watch."""


class Copy:
    """The objects of one source by name, kept up to date by `follow`. Reading is safe from other threads."""

    def __init__(self, source: Source, changed: Callable[[], None]) -> None:
        self._source, self._changed = source, changed
        self._lock = threading.Lock()
        self._objects: dict[str, Json] | None = None
        self._version: str | None = None

    def objects(self) -> dict[str, Json] | None:
        """Name -> object; None until the first list."""
        with self._lock:
            return None if self._objects is None else dict(self._objects)

    def follow(self, stop: threading.Event) -> None:
        """Runs until `stop`: list, watch, and again from where it ended; waits a little longer after each failure."""
        wait = 0.1
        while not stop.is_set():
            try:
                self.step()
                wait = 0.1
                stop.wait(0.02)  # no more, should the server end each watch at once
            except Gone:
                log.info("the watch is too old to go on: listing again")
                self._version = None
            except OSError as error:
                log.warning("the API server does not answer, going on with what is known: %s", error)
                stop.wait(wait * random.uniform(0.5, 1))
                wait = min(2 * wait, BACKOFF_MOST_SECONDS)

    def step(self) -> None:
        """One list if there was none, then one watch to its end."""
        if self._version is None:
            objects, version = self._source.listed()
            with self._lock:
                self._objects = {each["metadata"]["name"]: each for each in objects}
                self._version = version
            self._changed()
        for kind, each in self._source.watched(self._version):
            self._take(kind, each)

    def _take(self, kind: str, each: Mapping[str, Any]) -> None:
        with self._lock:
            assert self._objects is not None
            self._version = each["metadata"]["resourceVersion"]
            if kind == "BOOKMARK":
                return
            if kind == "DELETED":
                self._objects.pop(each["metadata"]["name"], None)
            else:
                self._objects[each["metadata"]["name"]] = dict(each)
        self._changed()


class ApiSource:
    """A source behind a list method of the `kubernetes` client, such as `CoreV1Api().list_namespaced_pod`."""

    def __init__(self, method: Callable[..., Any], **arguments: object) -> None:
        self._method, self._arguments = method, arguments

    def listed(self) -> tuple[list[Json], str]:
        """See `Source`."""
        with _in_plain_errors():
            answer = self._method(**self._arguments, _preload_content=False, _request_timeout=(CONNECT_SECONDS, 10))
            page = json.loads(answer.data)
        if page.get("kind") == "Status":
            raise OSError(page.get("message", "the API server refused the list"))
        return page["items"], page["metadata"]["resourceVersion"]

    def watched(self, version: str) -> Iterator[tuple[str, Json]]:
        """See `Source`."""
        from kubernetes.watch import Watch

        with _in_plain_errors():
            for event in Watch(return_type="object").stream(  # type: ignore[no-untyped-call]
                self._method,
                **self._arguments,
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=WATCH_SECONDS,
                _request_timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
            ):
                yield event["type"], event["raw_object"]


class _in_plain_errors:
    """Translates what the client raises: 410 to `Gone`, all else that means "not now" to `OSError`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        if isinstance(error, ApiException):
            if error.status == 410:
                raise Gone from error
            raise OSError(f"{error.status} {error.reason}") from error
        if isinstance(error, (HTTPError, ValueError, KeyError)):
            raise OSError(str(error) or type(error).__name__) from error


def connect(context: str | None = None) -> str:
    """Set up the client for the API server and return the namespace that this process is in ("default" outside a cluster).

    In a pod by its service account, elsewhere by KUBECONFIG. Raises Missing when there is neither.
    """
    from pathlib import Path

    from kubernetes import config

    from trimtab.errors import Missing

    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
        return Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read_text().strip()
    except config.ConfigException:
        pass
    try:
        config.load_kube_config(context=context)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise Missing(
            f"no Kubernetes cluster is known: set KUBECONFIG, or run in a pod with a service account ({error})"
        ) from error
    return "default"

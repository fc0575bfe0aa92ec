"""Keeps the objects of one kind as they are now, from a list and a watch.

What goes wrong with watches is handled here, once: a resource version that expired (410) begins again with a list; a watch that
ends or falls silent goes on where it was; while the API server is away or refuses, what was known is kept and `problem` says why.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from trimtab.errors import TrimtabError, Unavailable
from trimtab.kube import Kube, KubeError, Object

log = logging.getLogger(__name__)

# The server ends a watch after this many seconds; one that is silent for longer is dead and gets a new connection.
_WATCH_SECONDS = 45
_SILENCE_SECONDS = _WATCH_SECONDS + 10.0
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0

Key = tuple[str, str]


class Watcher:
    """Objects of `path`, in a thread of its own; only those that the label selector and the field selector `fields` choose.

    >>> Watcher(kube, "/api/v1/pods", selector="trimtab.dev/fleet").start()  # doctest: +SKIP

    `changed` is called in that thread after every list and every event. `heard` is called before it with each single change, as
    ``("ADDED" | "MODIFIED" | "DELETED", object)``: per event, and after a list for what is other than before, so that an index on
    top stays right. Both must be quick and must not raise.
    """

    def __init__(
        self,
        kube: Kube,
        path: str,
        *,
        selector: str = "",
        fields: str = "",
        changed: Callable[[], None] | None = None,
        heard: Callable[[str, Object], None] | None = None,
    ) -> None:
        self._kube, self._path, self._changed, self._heard = kube, path, changed, heard
        self._selectors = {"labelSelector": selector, "fieldSelector": fields}
        self._objects: dict[Key, Object] = {}
        self._lock = threading.Lock()
        self._version: str | None = None
        self._stop, self._synced = threading.Event(), threading.Event()
        self._answer: Any = None
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)
        self.problem: str | None = None
        """Why what is known may be old, in words; None while the watch stands."""

    def start(self) -> Watcher:
        """Begins to list and watch."""
        # `stop` cuts a connection that the thread reads: no other request may be on it, now or after it went back to a pool.
        self._kube = self._kube.apart()
        self._thread.start()
        return self

    def stop(self, timeout: float = 2.0) -> None:
        """Ends the watch; returns when its thread has ended or after `timeout` seconds."""
        self._stop.set()
        self._cut()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def wait_synced(self, timeout: float) -> bool:
        """Whether the first list is there, waiting up to `timeout` seconds for it."""
        return self._synced.wait(timeout)

    @property
    def synced(self) -> bool:
        """Whether the objects were listed at least once; before that, none are known rather than none there."""
        return self._synced.is_set()

    @property
    def objects(self) -> dict[Key, Object]:
        """(namespace, name) -> the object, as last heard."""
        with self._lock:
            return dict(self._objects)

    def get(self, namespace: str, name: str) -> Object | None:
        """One object, as last heard; None when it is not known."""
        with self._lock:
            return self._objects.get((namespace, name))

    def _run(self) -> None:
        try:
            self._follow()
        finally:
            self._kube.close()

    def _follow(self) -> None:
        pause = _PAUSE_SECONDS
        while not self._stop.is_set():
            try:
                if self._version is None:
                    self._list()
                began = time.monotonic()
                self._watch()
                if time.monotonic() - began > _PAUSE_SECONDS:
                    pause = _PAUSE_SECONDS
                    continue
            except Exception as error:  # whatever it was: a watch that has died in silence is worse
                if isinstance(error, KubeError) and error.status == 410:
                    log.info("the watch of %s expired and begins again with a list", self._path)
                    self._version = None
                elif not self._stop.is_set():
                    self._complain(_words(error, self._kube.host))
            self._stop.wait(pause * random.uniform(0.75, 1.25))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _list(self) -> None:
        answer = self._kube.get(self._path, **self._selectors)
        version, fresh = str(answer["metadata"]["resourceVersion"]), {_key(each): each for each in answer.get("items") or []}
        with self._lock:
            before, self._objects = self._objects, fresh
        self._version = version
        self._synced.set()
        self._well()
        self._tell(_differences(before, fresh))

    def _watch(self) -> None:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": _WATCH_SECONDS,
            **self._selectors,
        }
        self._answer = self._kube.open("GET", self._path, query, timeout=(5.0, _SILENCE_SECONDS))
        self._well()
        try:
            if not self._stop.is_set():
                for line in _lines(self._answer):
                    self._take(line)
        except (OSError, ValueError, _urllib3_errors()) as error:
            if not self._stop.is_set():
                raise Unavailable(f"the watch of {self._path} broke off: {str(error) or type(error).__name__}") from error
        finally:
            self._cut()

    def _take(self, line: bytes) -> None:
        event = json.loads(line)
        kind, thing = event["type"], event["object"]
        if kind == "ERROR":
            status = int(thing.get("code", 500))
            self._version = None if status == 410 else self._version
            raise KubeError(status, str(thing.get("reason", "")), str(thing.get("message", "the watch ended with an error")))
        self._version = str(thing["metadata"]["resourceVersion"])
        if kind == "BOOKMARK":
            return
        with self._lock:
            if kind == "DELETED":
                self._objects.pop(_key(thing), None)
            else:
                self._objects[_key(thing)] = thing
        self._tell([(kind, thing)])

    def _tell(self, changes: list[tuple[str, Object]]) -> None:
        if self._heard is not None:
            for kind, thing in changes:
                self._heard(kind, thing)
        if self._changed is not None:
            self._changed()

    def _well(self) -> None:
        if self.problem is not None:
            log.info("watching %s again", self._path)
            self.problem = None

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("going on with what was known of %s: %s", self._path, problem)
        self.problem = problem

    def _cut(self) -> None:
        """Ends the answer that is being read, from whichever thread: a plain close could wait for a reader that waits itself."""
        answer, self._answer = self._answer, None
        connection = getattr(getattr(answer, "connection", None), "sock", None)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if answer is not None and threading.current_thread() is self._thread:
            with contextlib.suppress(OSError):
                answer.close()


def _words(error: Exception, host: str) -> str:
    if isinstance(error, TrimtabError):
        return str(error)
    if isinstance(error, (KeyError, TypeError, ValueError)):
        return f"{host} sends no list of objects: {error!r}"
    log.exception("a watch failed in a way that was not foreseen", exc_info=error)
    return f"a watch failed: {error!r}"


def _key(thing: Object) -> Key:
    meta = thing["metadata"]
    return str(meta.get("namespace", "")), str(meta["name"])


def _differences(before: dict[Key, Object], after: dict[Key, Object]) -> list[tuple[str, Object]]:
    """What a list says that was not known. An object that was deleted and made again under its name is both."""
    changes = [("DELETED", each) for key, each in before.items() if key not in after or _uid(after[key]) != _uid(each)]
    for key, each in after.items():
        old = before.get(key)
        if old is None or _uid(old) != _uid(each):
            changes.append(("ADDED", each))
        elif old["metadata"].get("resourceVersion") != each["metadata"].get("resourceVersion"):
            changes.append(("MODIFIED", each))
    return changes


def _uid(thing: Object) -> object:
    return thing["metadata"].get("uid")


def _lines(answer: Any) -> Any:
    """The lines of a chunked answer, each as soon as it is whole."""
    rest = b""
    for chunk in answer.stream(65536, decode_content=False):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())


def _urllib3_errors() -> type[Exception]:
    import urllib3

    error: type[Exception] = urllib3.exceptions.HTTPError
    return error

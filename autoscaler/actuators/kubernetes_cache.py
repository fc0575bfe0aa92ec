"""What the cluster holds, as last heard: one watch per kind for all fleets, indexed by fleet. No request per fleet and step."""

from __future__ import annotations

import threading
from collections.abc import Callable

from autoscaler.actuators.kubernetes_pods import FLEET, Json
from trimtab.kube import Kube, fleet_name, fleet_path, path_of
from trimtab.kube_watch import Watcher

Key = tuple[str, str]
OPERATOR = "trimtab.dev/operator"
"""Label of ModelFleets that a certain operator looks after; without it, the one without a name does."""


class Shelf:
    """Objects of one kind, the newest known of each, and an index from a group (namespace, word) to their names."""

    def __init__(self, group: Callable[[Json], str], changed: Callable[[str, str], None]) -> None:
        self._group, self._changed = group, changed
        self._objects: dict[Key, Json] = {}
        self._groups: dict[Key, set[str]] = {}
        self._lock = threading.Lock()

    def get(self, namespace: str, name: str) -> Json | None:
        """One object."""
        with self._lock:
            return self._objects.get((namespace, name))

    def of(self, namespace: str, group: str) -> list[Json]:
        """The objects of a group."""
        with self._lock:
            return [self._objects[namespace, name] for name in sorted(self._groups.get((namespace, group), ()))]

    def all(self) -> list[Json]:
        """Every object."""
        with self._lock:
            return list(self._objects.values())

    def __len__(self) -> int:
        with self._lock:
            return len(self._objects)

    def put(self, thing: Json) -> bool:
        """Takes an object in, unless it or a newer one is known: an answer to a request may be ahead of the watch, or behind it.

        Returns whether it was news.
        """
        namespace, name = key = _key(thing)
        with self._lock:
            known = self._objects.get(key)
            same = known is not None and known["metadata"]["uid"] == thing["metadata"]["uid"]
            if known is not None and same and _version(known) >= _version(thing) > 0:
                return False
            self._leave(key)
            self._objects[key] = thing
            self._groups.setdefault((namespace, self._group(thing)), set()).add(name)
        return True

    def drop(self, namespace: str, name: str) -> None:
        """The object is gone."""
        with self._lock:
            self._leave((namespace, name))
            self._objects.pop((namespace, name), None)

    def hear(self, kind: str, thing: Json) -> None:
        """From a watch."""
        if kind == "DELETED":
            self.drop(*_key(thing))
        elif not self.put(thing):
            return  # the answer to our own request, heard again
        self._changed(_key(thing)[0], self._group(thing))

    def _leave(self, key: Key) -> None:
        known = self._objects.get(key)
        if known is not None:
            group = (key[0], self._group(known))
            self._groups[group].discard(key[1])
            if not self._groups[group]:
                del self._groups[group]


class Cache:
    """ModelFleets of this `instance` of the operator, and the pods and Deployments that carry a fleet's label.

    `changed(fleet id)` is called in a watch's thread whenever something of a fleet has changed. Pods and Deployments of a
    `targetRef` fleet carry no label at first: `also` watches a namespace whole, once for all such fleets in it.
    """

    def __init__(self, kube: Kube, namespace: str | None, changed: Callable[[str], None], instance: str = "") -> None:
        mine = f"{OPERATOR}={instance}" if instance else f"!{OPERATOR}"
        self._kube, self._namespace, self._tell = kube, namespace, changed
        self.fleets = Shelf(lambda thing: str(thing["metadata"]["name"]), self._heard)
        self.pods = Shelf(_labelled, self._heard)
        self.deployments = Shelf(_labelled, self._heard)
        self._foreign: dict[str, tuple[Shelf, Shelf, list[Watcher]]] = {}
        self._lock = threading.Lock()
        self._watchers = [
            Watcher(kube, fleet_path(namespace), selector=mine, heard=self.fleets.hear),
            Watcher(kube, path_of("pods", namespace), selector=FLEET, heard=self.pods.hear),
            Watcher(kube, path_of("deployments", namespace, api="apps/v1"), selector=FLEET, heard=self.deployments.hear),
        ]

    def start(self) -> Cache:
        """Begins to watch."""
        for watcher in self._watchers:
            watcher.start()
        return self

    def stop(self) -> None:
        """Ends all watches."""
        with self._lock:
            watchers = self._watchers + [each for _, _, more in self._foreign.values() for each in more]
        for watcher in watchers:
            watcher.stop()

    @property
    def synced(self) -> bool:
        """Whether everything was listed once; before that nothing can be said about any fleet."""
        return all(watcher.synced for watcher in self._watchers)

    @property
    def problem(self) -> str | None:
        """Why what is known may be old; None while all watches stand."""
        return next((watcher.problem for watcher in self._watchers if watcher.problem), None)

    def also(self, namespace: str) -> tuple[Shelf, Shelf] | None:
        """All Deployments and pods of a namespace; None until they were listed once."""
        with self._lock:
            if namespace not in self._foreign:
                deployments = Shelf(lambda thing: "", lambda *_: None)
                pods = Shelf(lambda thing: "", self._stirred)
                watchers = [
                    Watcher(self._kube, path_of("deployments", namespace, api="apps/v1"), heard=deployments.hear).start(),
                    Watcher(self._kube, path_of("pods", namespace), heard=pods.hear).start(),
                ]
                self._foreign[namespace] = (deployments, pods, watchers)
            deployments, pods, watchers = self._foreign[namespace]
        return (deployments, pods) if all(watcher.synced for watcher in watchers) else None

    def _heard(self, namespace: str, fleet: str) -> None:
        self._tell(fleet_name(namespace, fleet))

    def _stirred(self, namespace: str, _group: str) -> None:
        for thing in self.fleets.all():
            if thing["metadata"]["namespace"] == namespace and thing.get("spec", {}).get("targetRef"):
                self._tell(fleet_name(namespace, thing["metadata"]["name"]))


def _key(thing: Json) -> Key:
    return str(thing["metadata"].get("namespace", "")), str(thing["metadata"]["name"])


def _labelled(thing: Json) -> str:
    return str((thing["metadata"].get("labels") or {}).get(FLEET, ""))


def _version(thing: Json) -> int:
    text = str(thing["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0

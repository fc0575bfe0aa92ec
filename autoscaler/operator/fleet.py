"""A ModelFleet as it was read: its name, spec and annotations, and the words for what is wrong with it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec
import pydantic

from autoscaler.operator.api import ModelFleetSpec
from trimtab.errors import SettingsError
from trimtab.kube import API_VERSION, Object, fleet_name
from trimtab.messages import FleetPlan

DRILL = "trimtab.dev/drill-v"
_LONGEST = 63
_DRILL_NAME = re.compile(re.escape(DRILL) + r"(\d+)")


class Fleet(NamedTuple):
    """One ModelFleet. `name` and `namespace` are Kubernetes', `id` is its name in all messages."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: ModelFleetSpec
    annotations: dict[str, str]
    status: dict[str, Any]
    deleting: bool

    @property
    def id(self) -> str:
        """`<namespace>_<name>`."""
        return fleet_name(self.namespace, self.name)

    @property
    def owner(self) -> Object:
        """For the `ownerReferences` of what belongs to it."""
        return {"apiVersion": API_VERSION, "kind": "ModelFleet", "name": self.name, "uid": self.uid, "controller": True}

    @property
    def plan(self) -> FleetPlan | None:
        """The plan in force, or None; a damaged one counts as none."""
        try:
            return msgspec.convert(self.status["plan"], FleetPlan) if self.status.get("plan") else None
        except msgspec.ValidationError:
            return None

    def drill(self, version: int) -> str | None:
        """The fault that a game day gives this version, as JSON."""
        return self.annotations.get(f"{DRILL}{version}")

    @property
    def drills(self) -> dict[int, str]:
        """All of them, by version."""
        found = {_DRILL_NAME.fullmatch(key): value for key, value in self.annotations.items()}
        return {int(key.group(1)): value for key, value in found.items() if key}


def read(thing: Object, before: Fleet | None = None) -> Fleet:
    """A ModelFleet from the API's JSON. Raises `SettingsError` in words when its spec cannot be meant.

    `before`: what was read of it earlier; its spec is taken over while the generation, which counts specs, is the same.
    """
    meta = thing["metadata"]
    namespace, name = str(meta["namespace"]), str(meta["name"])
    if len(fleet_name(namespace, name)) > _LONGEST:
        raise SettingsError(f"namespace and name together have more than {_LONGEST - 1} characters: choose a shorter name")
    uid, generation = str(meta.get("uid", "")), int(meta.get("generation", 0))
    same = before is not None and generation > 0 and (before.uid, before.generation) == (uid, generation)
    return Fleet(
        namespace=namespace,
        name=name,
        uid=uid,
        generation=generation,
        spec=before.spec if before is not None and same else _spec(thing),
        annotations=dict(meta.get("annotations") or {}),
        status=dict(thing.get("status") or {}),
        deleting="deletionTimestamp" in meta,
    )


def _spec(thing: Object) -> ModelFleetSpec:
    try:
        return ModelFleetSpec.model_validate(thing.get("spec") or {})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("spec", *first["loc"]))
        raise SettingsError(f"{where}: {first['msg']}") from error

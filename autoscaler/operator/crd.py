"""The CustomResourceDefinition, made from `api`.

``python -m autoscaler.operator.crd`` prints it as YAML, ``python -m autoscaler.operator.crd docs`` its fields as a table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from autoscaler.operator.api import FREE, ModelFleetSpec

Json = dict[str, Any]

_KEPT = {
    "type", "description", "default", "enum", "pattern", "format", "items", "properties", "required", "additionalProperties",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
    "x-kubernetes-validations", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip
_INTEGER, _STRING, _TIME = {"type": "integer"}, {"type": "string"}, {"type": "string", "format": "date-time"}


def crd() -> Json:
    """The whole definition."""
    names = {"plural": "modelfleets", "singular": "modelfleet", "kind": "ModelFleet", "listKind": "ModelFleetList"}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _schema()},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas.min",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "additionalPrinterColumns": _COLUMNS,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "modelfleets.trimtab.dev"},
        "spec": {
            "group": "trimtab.dev",
            "scope": "Namespaced",
            "names": {**names, "shortNames": ["mf"], "categories": ["all", "trimtab"]},
            "versions": [version],
        },
    }


def fields(schema: Json | None = None, path: str = "spec") -> Iterator[tuple[str, str, str, str]]:
    """Every field of the spec as (path, type, default, meaning), for the documentation."""
    schema = schema or spec_schema()
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        inner = field.get("items", field)
        kind = str(field.get("type", "quantity"))
        nested = bool(inner.get("properties"))
        default = field.get("default")
        shown = "required" if name in schema.get("required", []) else "" if default is None or nested else str(default)
        yield here, kind, shown, " ".join(str(field.get("description", "")).split())
        if nested:
            yield from fields(inner, here + ("[]" if kind == "array" else ""))


def spec_schema() -> Json:
    """The structural schema of `spec`."""
    whole = ModelFleetSpec.model_json_schema(by_alias=True)
    return _structural(whole, whole.get("$defs", {}))


def _schema() -> Json:
    short_enough = {
        "rule": "self.metadata.name.size() <= 40",
        "message": "the name of a ModelFleet must have at most 40 characters: names of pods and Deployments are made from it",
    }
    return {
        "type": "object",
        "description": "A fleet of replicas that serve one model, kept on course by Trimtab.",
        "required": ["spec"],
        "properties": {
            "apiVersion": _STRING,
            "kind": _STRING,
            "metadata": {"type": "object"},
            "spec": spec_schema(),
            "status": _STATUS,
        },
        "x-kubernetes-validations": [short_enough],
    }


def _structural(schema: Json, definitions: Json) -> Json:
    """Without references, nulls, titles and whatever else a structural schema must not have."""
    if "$ref" in schema:
        found = definitions[schema["$ref"].rpartition("/")[2]]
        schema = {**found, **{key: value for key, value in schema.items() if key != "$ref"}}
    if schema.get("x-kubernetes-int-or-string"):
        return {"x-kubernetes-int-or-string": True}
    choices = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    if choices:
        (only,) = choices
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        schema = {**_structural(only, definitions), **rest}
    if "const" in schema:
        schema = {**schema, "enum": [schema["const"]]}
    kept = {key: value for key, value in schema.items() if key in _KEPT and not (key == "default" and value is None)}
    if "items" in kept:
        kept["items"] = _structural(kept["items"], definitions)
    if isinstance(kept.get("additionalProperties"), dict):
        kept["additionalProperties"] = _structural(kept["additionalProperties"], definitions)
        kept.pop("properties", None)
    elif "additionalProperties" in kept:
        del kept["additionalProperties"]
    if "properties" in kept:
        kept["properties"] = {name: _structural(each, definitions) for name, each in kept["properties"].items()}
    if isinstance(kept.get("default"), dict):
        kept["default"] = {name: value for name, value in kept["default"].items() if value is not None}
    if "description" in kept:
        kept["description"] = " ".join(kept["description"].split())
    return kept


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def _list(of: Json, *keys: str) -> Json:
    keyed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)} if keys else {}
    return {"type": "array", "items": {**of, "required": list(keys)} if keys else of, **keyed}


_CONDITION = _object(
    type=_STRING,
    status={"type": "string", "enum": ["True", "False", "Unknown"]},
    reason=_STRING,
    message=_STRING,
    observedGeneration=_INTEGER,
    lastTransitionTime=_TIME,
)
_POOL = _object(version=_INTEGER, role=_STRING, weight=_INTEGER, wanted=_INTEGER, ready=_INTEGER)
_DECISION = _object(id=_STRING, action=_STRING, outcome=_STRING, version=_INTEGER, target=_STRING, reason=_STRING, time=_TIME)
_REQUEST = _object(id=_STRING, kind=_STRING, outcome=_STRING, reason=_STRING, decision=_STRING, time=_TIME)
_STATUS: Json = {
    "description": "What is; written by the operator.",
    **_object(
        observedGeneration={**_INTEGER, "description": "Generation of the spec that was decided on last."},
        conditions={**_list(_CONDITION, "type"), "description": "Ready, Progressing, Degraded, Paused, Frozen, ScalingConflict."},
        replicas={**_INTEGER, "description": "Replicas that exist and are not in quarantine."},
        readyReplicas={**_INTEGER, "description": "Of these, how many are ready."},
        desiredReplicas={**_INTEGER, "description": "Replicas that all pools together should have."},
        readiness={**_STRING, "description": "Ready over desired replicas, for people."},
        selector={**_STRING, "description": "Label selector of the replicas, for the scale sub-resource."},
        version={**_INTEGER, "description": "Version that serves."},
        canaryVersion={**_INTEGER, "description": "Version on trial."},
        canaryWeight={**_INTEGER, "description": "Its share of traffic in percent."},
        phase={**_STRING, "description": "Of the rollout: idle, starting, canary, guard."},
        versions={**_list(_POOL), "description": "The pools."},
        quarantined={**_list(_STRING), "description": "Pods in quarantine."},
        slo={**_STRING, "description": "Met, Missed or Unknown, over the last minute of the version that serves."},
        demand=_object(arrivalsPerSecond={"type": "number"}),
        lastDecision=_DECISION,
        requests={**_list(_REQUEST), "description": "The newest requests of people, and what became of them."},
        withdrawn={**_INTEGER, "description": "Version of the spec that was rolled back on request; ends with the next release."},
        plan={"type": "object", "description": "The FleetPlan in force; the gateway follows it.", **FREE},
        memory={**_STRING, "description": "What the policy remembers: JSON, compressed, base64."},
        term={**_INTEGER, "description": "Term of the leader that wrote last; an older one may not write."},
    ),
}
_COLUMNS = [
    {"name": "READY", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    {"name": "VERSION", "type": "integer", "jsonPath": ".status.version"},
    {"name": "CANARY", "type": "integer", "jsonPath": ".status.canaryVersion"},
    {"name": "WEIGHT", "type": "integer", "jsonPath": ".status.canaryWeight"},
    {"name": "REPLICAS", "type": "string", "jsonPath": ".status.readiness"},
    {"name": "SLO", "type": "string", "jsonPath": ".status.slo"},
    {"name": "PAUSED", "type": "boolean", "jsonPath": ".spec.paused"},
    {"name": "LAST-DECISION", "type": "string", "jsonPath": ".status.lastDecision.action"},
    {"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "REASON", "type": "string", "jsonPath": ".status.lastDecision.reason", "priority": 1},
]


def as_yaml() -> str:
    """As the repository keeps it."""
    import yaml

    head = "# Made by `python -m autoscaler.operator.crd` from autoscaler/operator/api.py; do not edit.\n"
    return head + yaml.dump(crd(), Dumper=_plain(yaml), sort_keys=False, width=130, allow_unicode=True)


def as_table() -> str:
    """The spec's fields as a Markdown table."""
    lines = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join(lines + [f"| `{path}` | {kind} | {default} | {words} |" for path, kind, default, words in fields()]) + "\n"


def _plain(yaml: Any) -> Any:
    dumper = type("Plain", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    return dumper


if __name__ == "__main__":
    sys.stdout.write(as_table() if sys.argv[1:] == ["docs"] else as_yaml())

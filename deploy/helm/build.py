"""Writes the Helm chart `deploy/helm/trimtab` from `deploy/kubernetes/base`: python deploy/helm/build.py

What the overlays set (images, Kafka, storage, sizes) becomes a value; everything else is as kustomize renders it. The defaults
give the base, object for object. The chart is checked in; a test renders it again and compares. Needs kubectl.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BASE = ROOT / "deploy/kubernetes/base"
CHART = Path(__file__).parent / "trimtab"
NAMESPACE = "trimtab"
SETTINGS = "trimtab-settings"
_MARK = "# Made by deploy/helm/build.py from deploy/kubernetes/base: change it there.\n"
_KUSTOMIZE_HASH = re.compile(r"-[0-9a-z]{10}$")

Json = dict[str, Any]


def main() -> None:
    """Writes the chart anew."""
    shutil.rmtree(CHART, ignore_errors=True)
    for name, text in files(rendered_base()).items():
        file = CHART / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def rendered_base() -> list[Json]:
    """The base as kustomize renders it."""
    done = subprocess.run(["kubectl", "kustomize", str(BASE)], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        sys.exit(f"kubectl kustomize {BASE}: {done.stderr}")
    return list(yaml.safe_load_all(done.stdout))


def files(base: list[Json]) -> dict[str, str]:
    """The chart's files by their paths in it."""
    found = {f"templates/{_file(thing)}": _MARK + _template(thing) for thing in base if thing["kind"] != "Namespace"}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return found | {
        "Chart.yaml": _MARK + _CHART.format(version=version),
        "values.yaml": _MARK + _values(base),
        "values.schema.json": json.dumps(_SCHEMA, indent=2) + "\n",
        "crds/modelfleet.yaml": (BASE / "crd/modelfleet.yaml").read_text(),
        "templates/NOTES.txt": _NOTES,
    }


def plain_name(name: str) -> str:
    """A name without the hash that kustomize gives to generated ConfigMaps."""
    return _KUSTOMIZE_HASH.sub("", name) if name.startswith((f"{SETTINGS}-", "trimtab-flink-")) else name


def _file(thing: Json) -> str:
    return f"{plain_name(thing['metadata']['name'])}-{thing['kind'].lower()}.yaml"


def _template(thing: Json) -> str:
    """One object with the values' places in it. A place is a token in the YAML, replaced by its Helm text afterwards."""
    thing = _walk(thing)
    kind, name = thing["kind"], thing["metadata"]["name"]
    if kind == "ConfigMap" and name == SETTINGS:
        thing["data"] = _settings(thing["data"])
    if kind == "PersistentVolumeClaim":
        thing["spec"]["resources"]["requests"]["storage"] = "@@quoted:checkpoints.size@@"
        thing["spec"]["@@class@@"] = 0
    if kind == "Deployment":
        _deployment(thing, name.removeprefix("trimtab-"))
    text = yaml.safe_dump(thing, sort_keys=False, width=1000)
    if "{{" in text:
        raise SystemExit(f"{kind} {name} holds '{{{{', which Helm would take for its own")
    for pattern, helm in _HELM.items():
        text = re.sub(pattern, helm, text)
    return text


def _walk(thing: Any, key: str = "") -> Any:
    if isinstance(thing, dict):
        return {each: _walk(value, each) for each, value in thing.items()}
    if isinstance(thing, list):
        return [_walk(each, key) for each in thing]
    if key == "namespace" and thing == NAMESPACE:
        return "@@namespace@@"
    if key == "image":
        return f"@@quoted:images.{str(thing).removeprefix('trimtab-')}@@"
    return plain_name(thing) if key == "name" and isinstance(thing, str) else thing


def _settings(data: Json) -> Json:
    known = {
        "TRIMTAB_KAFKA_BOOTSTRAP": "@@quoted:kafka.bootstrap@@",
        "TRIMTAB_OPERATOR_CORE_IMAGE": "@@quoted:images.core@@",
        "TRIMTAB_OPERATOR_SERVING_IMAGE": "@@quoted:images.serving@@",
    }
    return {**data, **known, "@@more-settings@@": 0}


def _deployment(thing: Json, name: str) -> None:
    template = thing["spec"]["template"]
    configs = ("settings", "flink") if name in ("jobmanager", "taskmanager") else ("settings",)
    # Pods are made anew when their settings change.
    template["metadata"].setdefault("annotations", {}).update({f"@@checksum:{each}@@": 0 for each in configs})
    if name in ("operator", "taskmanager"):
        thing["spec"]["replicas"] = f"@@{name}.replicas@@"
    if name == "taskmanager":
        template["spec"]["containers"][0]["resources"] = "@@taskmanager.resources@@"


_CHECKSUM = r'checksum/\1: {{ include (print $.Template.BasePath "/trimtab-\1-configmap.yaml") . | sha256sum }}'
_CLASS = """\
  {{- with .Values.checkpoints.storageClass }}
  storageClassName: {{ . | quote }}
  {{- end }}
"""
_MORE_SETTINGS = """\
  {{- with .Values.kafka.replication }}
  TRIMTAB_KAFKA_REPLICATION: {{ . | quote }}
  {{- end }}
  {{- range $name, $value := .Values.settings }}
  {{ $name }}: {{ $value | quote }}
  {{- end }}
"""
_HELM = {
    r"'?@@namespace@@'?": "{{ .Release.Namespace }}",
    r"'?@@quoted:([a-z]+\.[A-Za-z]+)@@'?": r"{{ .Values.\1 | quote }}",
    r"'?@@([a-z]+\.replicas)@@'?": r"{{ .Values.\1 }}",
    r" *'?@@([a-z]+\.resources)@@'?": r"\n            {{- toYaml .Values.\1 | nindent 12 }}",
    r"'?@@checksum:([a-z]+)@@'?: 0": _CHECKSUM,
    r" *'?@@class@@'?: 0\n": _CLASS,
    r" *'?@@more-settings@@'?: 0\n": _MORE_SETTINGS,
}

_CHART = """\
apiVersion: v2
name: trimtab
description: Keeps model-serving fleets on course. Apply crds/ by hand before an upgrade, as Helm leaves CRDs alone.
type: application
version: {version}
appVersion: {version}
kubeVersion: ">=1.29.0-0"    # validations in CEL
"""


def _values(base: list[Json]) -> str:
    by_name = {plain_name(thing["metadata"]["name"]): thing for thing in base if thing["kind"] in ("ConfigMap", "Deployment")}
    settings, claim = by_name[SETTINGS]["data"], next(each for each in base if each["kind"] == "PersistentVolumeClaim")
    core = settings["TRIMTAB_OPERATOR_CORE_IMAGE"]
    taskmanager = by_name["trimtab-taskmanager"]["spec"]
    resources = yaml.safe_dump(taskmanager["template"]["spec"]["containers"][0]["resources"], default_flow_style=True).strip()
    return f"""\
images:
  core: {core}    # operator, collector, and the sidecar in gateways
  detect: trimtab-detect:{core.rpartition(":")[2]}
  serving: {settings["TRIMTAB_OPERATOR_SERVING_IMAGE"]}    # of the pods of fleets that name none
kafka:
  bootstrap: {settings["TRIMTAB_KAFKA_BOOTSTRAP"]}    # any broker, or a bootstrap Service, of your own Kafka
  replication: null    # copies of each partition of Trimtab's topics; 3 in production
checkpoints:
  storageClass: null    # one that gives ReadWriteMany; null: the cluster's default
  size: {claim["spec"]["resources"]["requests"]["storage"]}
operator:
  replicas: {by_name["trimtab-operator"]["spec"]["replicas"]}    # one leads, the others wait
taskmanager:
  replicas: {taskmanager["replicas"]}    # a second one stands by
  resources: {resources}
settings: {{}}    # more of Trimtab's settings, as environment variables: TRIMTAB_AUTOSCALE_...
"""


def _object(**properties: Json) -> Json:
    return {"type": "object", "additionalProperties": False, "properties": properties}


_TEXT: Json = {"type": "string", "minLength": 1}
_COUNT: Json = {"type": "integer", "minimum": 1}
_SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    **_object(
        images=_object(core=_TEXT, detect=_TEXT, serving=_TEXT),
        kafka=_object(bootstrap=_TEXT, replication={"type": ["integer", "null"], "minimum": 1}),
        checkpoints=_object(storageClass={"type": ["string", "null"]}, size=_TEXT),
        operator=_object(replicas=_COUNT),
        taskmanager=_object(replicas=_COUNT, resources={"type": "object"}),
        settings={"type": "object", "propertyNames": {"pattern": "^TRIMTAB_[A-Z0-9_]+$"}},
    ),
    "title": "Trimtab",
}

_NOTES = """\
Trimtab runs in the namespace {{ .Release.Namespace }}. It reads Kafka at {{ .Values.kafka.bootstrap }}.

A first fleet:    kubectl apply -f - (see docs/kubernetes-api.md)
Its state:        kubectl get modelfleets -A
Before removing:  kubectl delete modelfleets --all -A    (drains and removes the fleets, while the operator still runs)
"""

if __name__ == "__main__":
    main()

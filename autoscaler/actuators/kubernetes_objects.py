"""The objects of a fleet and a plan, as pure functions; nothing here talks to a cluster."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping

from autoscaler.actuators.kubernetes_pods import (
    FLEET,
    ROLE,
    SERVING,
    STATE,
    Json,
    Templates,
    gateway_labels,
    gateway_pod,
    replica_labels,
    replica_pod,
)
from autoscaler.operator.fleet import Fleet
from trimtab.errors import SettingsError
from trimtab.kube import path_of

DIGEST = "trimtab.dev/digest"
"""Annotation: what an object was made from, without its number of replicas; equal digests need no request."""
FIXED = "trimtab.dev/fixed"
"""Annotation of the gateway's Deployment: digest of the objects that no plan changes, applied before it."""

_PATHS = {
    "Deployment": ("deployments", "apps/v1"),
    "Service": ("services", "v1"),
    "ServiceAccount": ("serviceaccounts", "v1"),
    "RoleBinding": ("rolebindings", "rbac.authorization.k8s.io/v1"),
    "PodDisruptionBudget": ("poddisruptionbudgets", "policy/v1"),
}


def path(thing: Mapping[str, Json]) -> str:
    """Where an object lives."""
    plural, api = _PATHS[str(thing["kind"])]
    return path_of(plural, thing["metadata"]["namespace"], thing["metadata"]["name"], api=api)


def replica_deployment(fleet: Fleet, version: int, replicas: int, templates: Templates) -> Json:
    """The Deployment of one version."""
    spec: Json = {
        "selector": {"matchLabels": replica_labels(fleet, version)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": 600,
        "template": replica_pod(fleet, version, templates),
    }
    made = _object(fleet, "Deployment", f"{fleet.name}-v{version}", replica_labels(fleet, version), spec)
    made["metadata"]["annotations"] = {DIGEST: digest(made)}
    made["spec"]["replicas"] = replicas
    return made


def gateway_deployment(fleet: Fleet, templates: Templates) -> Json:
    """The gateway's Deployment."""
    spec: Json = {
        "selector": {"matchLabels": gateway_labels(fleet)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "revisionHistoryLimit": 2,
        "replicas": fleet.spec.gateway.replicas,
        "template": gateway_pod(fleet, templates),
    }
    made = _object(fleet, "Deployment", f"{fleet.name}-gateway", gateway_labels(fleet), spec)
    made["metadata"]["annotations"] = {DIGEST: digest(made), FIXED: digest(fixed(fleet))}
    return made


def fixed(fleet: Fleet) -> list[Json]:
    """What no plan changes: Service, budgets, and the account of the gateway's sidecar."""
    account = f"{fleet.name}-gateway"
    serving = {FLEET: fleet.name, ROLE: "triton", STATE: SERVING}
    service = {
        "selector": gateway_labels(fleet),
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
    }
    share = f"{fleet.spec.remediation.max_unavailable_percent}%"
    budgets = [(fleet.name, serving, share), (account, gateway_labels(fleet), 1)]
    binding = _object(fleet, "RoleBinding", account, gateway_labels(fleet))
    binding |= {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "trimtab-gateway"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": fleet.namespace}],
    }
    return [
        _object(fleet, "ServiceAccount", account, gateway_labels(fleet)) | {"automountServiceAccountToken": False},
        binding,
        _object(fleet, "Service", fleet.name, {FLEET: fleet.name}, service),
        *(
            _object(
                fleet,
                "PodDisruptionBudget",
                name,
                {FLEET: fleet.name},
                {"maxUnavailable": most, "selector": {"matchLabels": labels}},
            )
            for name, labels, most in budgets
        ),
    ]


def digest(made: object) -> str:
    """Short, and the same for the same content."""
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]


def with_weights(route: Json, shares: Mapping[str, int]) -> Json | None:
    """An HTTPRoute with these weights by Service, or None when it has them. Raises `SettingsError` when a Service is missing."""
    changed = copy.deepcopy(route)
    backends = [each for rule in changed.get("spec", {}).get("rules", []) for each in rule.get("backendRefs", [])]
    missing = sorted(name for name, share in shares.items() if share and name not in {each.get("name") for each in backends})
    if missing:
        raise SettingsError(f"HTTPRoute {route['metadata']['name']} has no backend {missing[0]}: add it with weight 0")
    for backend in backends:
        if backend.get("name") in shares:
            backend["weight"] = shares[backend["name"]]
    return None if changed == route else changed


def _object(fleet: Fleet, kind: str, name: str, labels: Mapping[str, str], spec: Json | None = None) -> Json:
    metadata: Json = {
        "name": name,
        "namespace": fleet.namespace,
        "labels": {**labels, "app.kubernetes.io/managed-by": "trimtab"},
        "ownerReferences": [fleet.owner],
    }
    made: Json = {"apiVersion": _PATHS[kind][1], "kind": kind, "metadata": metadata}
    return made | {"spec": spec} if spec is not None else made

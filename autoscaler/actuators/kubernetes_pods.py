"""The pods of a managed fleet, as pure functions: a Triton replica, and a gateway of Envoy and its sidecar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoscaler.operator.fleet import Fleet

Json = dict[str, Any]

FLEET, VERSION, ROLE, STATE = "trimtab.dev/fleet", "trimtab.dev/version", "trimtab.dev/role", "trimtab.dev/state"
SERVING, QUARANTINED = "serving", "quarantined"
STORE = "/models"
"""Where a volume with versions is mounted."""
ACCESS = "/access"
"""Where a gateway finds tokens and certificates."""


@dataclass(frozen=True)
class Templates:
    """Images, and what tests leave out: `bare` pods run their image as it is, without arguments, probes and draining."""

    serving_image: str = "trimtab-serving:dev"
    core_image: str = "trimtab-core:dev"
    grace_seconds: int = 40
    bare: bool = False


def replica_labels(fleet: Fleet, version: int) -> dict[str, str]:
    """Of a serving replica; all of them are in its Deployment's selector."""
    return {FLEET: fleet.name, VERSION: str(version), ROLE: "triton", STATE: SERVING}


def gateway_labels(fleet: Fleet) -> dict[str, str]:
    """Of a gateway pod."""
    return {FLEET: fleet.name, ROLE: "gateway"}


def replica_pod(fleet: Fleet, version: int, templates: Templates) -> Json:
    """The template of one version's pods."""
    spec = fleet.spec
    repository = spec.repository
    drill = fleet.drill(version)
    ready = {"httpGet": {"path": f"/v2/models/{spec.model}/versions/{version}/ready", "port": "http"}}
    alive = {"httpGet": {"path": "/v2/health/live", "port": "http"}}
    env = [{"name": "TRIMTAB_DRILL", "value": drill}] if drill else []
    mounts: list[Json] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    volumes: list[Json] = [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}]
    if repository is not None and repository.claim_name:
        env.append({"name": "TRIMTAB_MODEL_STORE", "value": STORE})
        mounts.append({"name": "store", "mountPath": STORE, "readOnly": True})
        volumes.append({"name": "store", "persistentVolumeClaim": {"claimName": repository.claim_name, "readOnly": True}})
    container = _container(
        "triton",
        repository.image if repository is not None and repository.image else templates.serving_image,
        ["triton", "--model", spec.model, "--version", str(version)],
        ports={"http": 8000, "grpc": 8001, "metrics": 8002},
        mounts=mounts,
        resources=_resources(fleet),
        probes={
            "startupProbe": {**ready, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 180},
            # 10 s and more: a short stall is hedged by the gateway, and is no reason to leave the traffic.
            "readinessProbe": {**ready, "periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 5},
            # Two minutes: a replica that hangs is the operator's to replace, with a reason.
            "livenessProbe": {**alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 12},
            "lifecycle": {"preStop": {"exec": {"command": ["trimtab-container", "drain-triton"]}}},
        },
        templates=templates,
        env=env,
        pull_policy=repository.pull_policy if repository is not None else "IfNotPresent",
    )
    labels = replica_labels(fleet, version)
    pod = _pod([container], volumes, templates) | {"affinity": _apart({FLEET: fleet.name, ROLE: "triton"})}
    scheduling = spec.scheduling
    pod |= {"nodeSelector": scheduling.node_selector} if scheduling.node_selector else {}
    pod |= {"tolerations": scheduling.tolerations} if scheduling.tolerations else {}
    pod |= {"priorityClassName": scheduling.priority_class_name} if scheduling.priority_class_name else {}
    if repository is not None and repository.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in repository.pull_secrets]
    return {"metadata": {"labels": labels}, "spec": pod}


def gateway_pod(fleet: Fleet, templates: Templates) -> Json:
    """The template of the gateway's pods."""
    ready = {"httpGet": {"path": "/ready", "port": "metrics"}}
    tmp, files = {"name": "tmp", "mountPath": "/tmp"}, {"name": "gateway", "mountPath": "/gateway"}  # noqa: S108
    wanted = fleet.spec.gateway
    access = [{"name": "access", "mountPath": ACCESS, "readOnly": True}] if wanted.access_secret else []
    env = [{"name": "TRIMTAB_GATEWAY_ACCESS_FOLDER", "value": ACCESS}] if wanted.access_secret else []
    env += [{"name": "TRIMTAB_GATEWAY_MIRROR_PERCENT", "value": str(wanted.mirror_percent)}] if wanted.mirror_percent else []
    envoy = _container(
        "envoy",
        wanted.image or templates.serving_image,
        ["envoy"],
        ports={"http": 8080, "metrics": 9901},
        mounts=[tmp, {**files, "readOnly": True}, *access],
        resources={"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        probes={
            "startupProbe": {**ready, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 120},
            "readinessProbe": {**ready, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 3},
            "livenessProbe": {**ready, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
            "lifecycle": {"preStop": {"exec": {"command": ["trimtab-container", "drain-envoy"]}}},
        },
        templates=templates,
    )
    account = {"name": "api", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    sync = _container(
        "sync",
        templates.core_image,
        ["gateway-sync", "--fleet", fleet.name, "--folder", "/gateway"],
        ports={},
        mounts=[tmp, files, account, *access],
        resources={"requests": {"cpu": "50m", "memory": "80Mi"}, "limits": {"memory": "200Mi"}},
        probes={},
        templates=templates,
        env=env,
    )
    volumes: list[Json] = [{"name": "tmp", "emptyDir": {}}, {"name": "gateway", "emptyDir": {}}, _account_volume()]
    volumes += [{"name": "access", "secret": {"secretName": wanted.access_secret}}] if wanted.access_secret else []
    pod = _pod([envoy, sync], volumes, templates) | {
        "serviceAccountName": f"{fleet.name}-gateway",
        "affinity": _apart(gateway_labels(fleet)),
    }
    return {"metadata": {"labels": gateway_labels(fleet)}, "spec": pod}


def _pod(containers: list[Json], volumes: list[Json], templates: Templates) -> Json:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": templates.grace_seconds,
        "containers": containers,
        "volumes": volumes,
    }


def _container(
    name: str,
    image: str,
    args: list[str],
    *,
    ports: dict[str, int],
    mounts: list[Json],
    resources: Json,
    probes: Json,
    templates: Templates,
    env: list[Json] | None = None,
    pull_policy: str = "IfNotPresent",
) -> Json:
    container: Json = {
        "name": name,
        "image": image,
        "imagePullPolicy": pull_policy,
        "volumeMounts": mounts,
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",  # why a version did not start is in its last lines
    }
    container |= {"ports": [{"name": port, "containerPort": number} for port, number in ports.items()]} if ports else {}
    container |= {"env": env} if env else {}
    return container if templates.bare else container | {"args": args} | probes


def _resources(fleet: Fleet) -> Json:
    resources, gpu = fleet.spec.resources, fleet.spec.gpu
    limits = dict(resources.limits)
    if gpu is not None and gpu.count:
        limits[gpu.resource] = gpu.count
    return {"requests": dict(resources.requests), "limits": limits}


def _apart(labels: dict[str, str]) -> Json:
    """Rather on different nodes."""
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 50, "podAffinityTerm": term}]}}


def _account_volume() -> Json:
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": "api", "projected": {"defaultMode": 0o440, "sources": sources}}

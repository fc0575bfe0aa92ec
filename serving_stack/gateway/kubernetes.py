"""From what Kubernetes says (a plan, pods) to a `GatewayState`. Pure; `kubernetes_sync` brings the objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from serving_stack.gateway import place
from serving_stack.gateway.state import GatewayPool, GatewayState
from trimtab.errors import SettingsError
from trimtab.kube import is_ready
from trimtab.messages import FleetPlan

FLEET, ROLE, STATE, VERSION = (f"trimtab.dev/{name}" for name in ("fleet", "role", "state", "version"))
CONTAINER, PORT, GRPC_PORT = "triton", "http", "grpc"


class ReplicaPod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that can take requests: Ready, serving, not on its way out."""

    name: str
    version: int
    host: str
    port: int
    grpc: int | None = None
    """None: this replica speaks no gRPC."""


def selector(name: str) -> str:
    """The label selector of the pods that a ModelFleet's gateway may send to."""
    return f"{FLEET}={name},{ROLE}=triton,{STATE}=serving"


def plan_of(fleet: Mapping[str, Any]) -> FleetPlan | None:
    """The plan in a ModelFleet's status; None when it has none yet. Raises SettingsError when it is not readable as one."""
    plan = (fleet.get("status") or {}).get("plan")
    if not plan:
        return None
    try:
        return msgspec.json.decode(plan, type=FleetPlan) if isinstance(plan, str) else msgspec.convert(plan, FleetPlan)
    except msgspec.DecodeError as error:
        raise SettingsError(f"status.plan is not a plan: {error}") from error


def replica_of(pod: Mapping[str, Any]) -> ReplicaPod | None:
    """The replica in a pod, or None while it cannot take requests: not Ready, leaving, without address, port or version."""
    metadata, status = pod["metadata"], pod.get("status", {})
    version = (metadata.get("labels") or {}).get(VERSION, "")
    ports = {
        port.get("name"): port["containerPort"]
        for container in pod.get("spec", {}).get("containers", ())
        if container["name"] == CONTAINER
        for port in container.get("ports") or ()
    }
    if not (is_ready(pod) and version.isdecimal() and PORT in ports and status.get("podIP")) or metadata.get("deletionTimestamp"):
        return None
    return ReplicaPod(
        name=metadata["name"], version=int(version), host=status["podIP"], port=ports[PORT], grpc=ports.get(GRPC_PORT)
    )


def model_of(fleet: Mapping[str, Any]) -> str | None:
    """The model that a ModelFleet serves; None when it is not there."""
    return (fleet.get("spec") or {}).get("model")


def gateway_state(fleet: str, plan: FleetPlan | None, pods: Iterable[ReplicaPod], model: str | None = None) -> GatewayState:
    """What the gateway should do. Pods of a version that the plan does not name, and quarantined ones, get nothing."""
    there = sorted(pods, key=lambda pod: pod.name)

    def listed(version: int) -> list[ReplicaPod]:
        return [pod for pod in there if pod.version == version and plan and pod.name not in plan.quarantined]

    return GatewayState(
        fleet=fleet,
        host=place.HOST,
        listen_port=place.LISTEN_PORT,
        admin_port=place.ADMIN_PORT,
        metrics_port=place.METRICS_PORT,
        model=model,
        grpc=True,
        pools=tuple(
            GatewayPool(
                version=pool.version,
                role=pool.role,
                weight=pool.weight,
                endpoints=tuple((pod.host, pod.port) for pod in listed(pool.version)),
                grpc=tuple((pod.host, pod.grpc) for pod in listed(pool.version) if pod.grpc),
            )
            for pool in (plan.pools if plan else ())
        ),
    )

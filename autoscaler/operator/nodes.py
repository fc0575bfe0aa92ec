"""Cordons a node whose GPU is dead, where the fleet's owner allows it."""

from __future__ import annotations

from autoscaler.operator.fleet import Fleet
from trimtab.kube import Kube, path_of

CORDONED_FOR = "trimtab.dev/cordoned-for"


def cordon(kube: Kube, node: str, fleet: Fleet) -> None:
    """Marks the node unschedulable and says for whom. Raises `KubeError` (403 without the RBAC for it) or `Unavailable`."""
    body = {"metadata": {"annotations": {CORDONED_FOR: f"{fleet.namespace}.{fleet.name}"}}, "spec": {"unschedulable": True}}
    kube.patch(path_of("nodes", None, node), body, fieldManager="trimtab")

"""Accounts with the rights that the repository ships, and no others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from trimtab.kube import Kube, connect, path_of

Json = dict[str, Any]
RBAC = "rbac.authorization.k8s.io/v1"
DEPLOY = Path(__file__).parents[2] / "deploy/kubernetes"


def rules() -> list[Json]:
    """The operator's, as they are shipped."""
    return list(_cluster_role("base/operator/rbac.yaml")["rules"])


def limited(kube: Kube, namespace: str) -> Kube:
    """An account with the operator's rights in this namespace and no others."""
    subject = {"kind": "ServiceAccount", "name": "op", "namespace": namespace}
    meta = {"name": "op", "namespace": namespace}
    lease = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}
    kube.create(path_of("serviceaccounts", namespace), {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    role = {"apiVersion": RBAC, "kind": "Role", "metadata": meta, "rules": [*rules(), lease]}
    kube.create(path_of("roles", namespace, api=RBAC), role)
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "op"}
    kube.create(
        path_of("rolebindings", namespace, api=RBAC),
        {"apiVersion": RBAC, "kind": "RoleBinding", "metadata": meta, "roleRef": ref, "subjects": [subject]},
    )
    token = kube.create(
        path_of("serviceaccounts", namespace, "op", sub="token"),
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}},
    )
    found = connect()
    found.configuration.api_key = {"BearerToken": token["status"]["token"]}
    found.configuration.api_key_prefix = {"BearerToken": "Bearer"}
    found.configuration.refresh_api_key_hook = None
    return found


def gateway_role(kube: Kube) -> None:
    """Puts the role of the gateway's sidecar in place, which the operator binds."""
    role = _cluster_role("base/gateway-role.yaml")
    kube.apply(path_of("clusterroles", None, role["metadata"]["name"], api=RBAC), role, manager="trimtab-install")


@contextlib.contextmanager
def may_cordon(kube: Kube, namespace: str) -> Iterator[None]:
    """What the component cordon-nodes adds, for the account that `limited` made."""
    meta = {"name": f"{namespace}-nodes"}
    role = _cluster_role("components/cordon-nodes/rbac.yaml") | {"metadata": meta}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", **meta}
    subject = {"kind": "ServiceAccount", "name": "op", "namespace": namespace}
    binding = {"apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": meta, "roleRef": ref, "subjects": [subject]}
    kube.create(path_of("clusterroles", api=RBAC), role)
    kube.create(path_of("clusterrolebindings", api=RBAC), binding)
    try:
        yield
    finally:
        kube.delete(path_of("clusterrolebindings", None, meta["name"], api=RBAC))
        kube.delete(path_of("clusterroles", None, meta["name"], api=RBAC))


def _cluster_role(file: str) -> Json:
    found = yaml.safe_load_all((DEPLOY / file).read_text())
    return next(each for each in found if each["kind"] == "ClusterRole")

"""Where a gateway pod's Envoy listens: agreed between the container that runs it and the one that writes its files."""

from __future__ import annotations

HOST = "0.0.0.0"  # noqa: S104 (a pod's address is the pod's own; NetworkPolicies say who may come)
LISTEN_PORT = 8080
METRICS_PORT = 9901
ADMIN_PORT = 9902

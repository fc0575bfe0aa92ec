"""The gateway: one Envoy in front of a fleet's pools, steered by files."""

from serving_stack.gateway.files import write
from serving_stack.gateway.process import GatewayProcess, envoy_binary, gateway_process
from serving_stack.gateway.render import render
from serving_stack.gateway.state import Endpoint, GatewayPool, GatewayState, Patience, cluster_name

__all__ = [
    "Endpoint",
    "GatewayPool",
    "GatewayProcess",
    "GatewayState",
    "Patience",
    "cluster_name",
    "envoy_binary",
    "gateway_process",
    "render",
    "write",
]

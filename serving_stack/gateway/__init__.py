"""The gateway: one Envoy in front of a fleet's pools, steered by files."""

from serving_stack.gateway.files import write
from serving_stack.gateway.process import GatewayProcess, envoy_binary, gateway_process
from serving_stack.gateway.render import render
from serving_stack.gateway.state import Admission, Endpoint, GatewayPool, GatewayState, Patience, Tls, Token, cluster_name

__all__ = [
    "Admission",
    "Endpoint",
    "GatewayPool",
    "GatewayProcess",
    "GatewayState",
    "Patience",
    "Tls",
    "Token",
    "cluster_name",
    "envoy_binary",
    "gateway_process",
    "render",
    "write",
]

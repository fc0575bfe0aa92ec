"""Envoy's clusters and their endpoints, from a `GatewayState`. See `render` for what each cluster is for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from serving_stack.gateway.envoy_json import TYPE, Json, address, resources, watched
from serving_stack.gateway.state import Endpoint, GatewayPool, GatewayState, cluster_name

NOBODY = "nobody.sock"
"""A socket that never exists. While a pool has no replica and no fallback has one, tries fail on it at once and come again
after a back-off, so that a request waits for a replica instead of being refused."""

_MANY = 100_000  # circuit breakers: admission decides what is too much, and counts requests, not connections
_HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}


def speeches(state: GatewayState) -> tuple[str, ...]:
    """What the replicas speak, as the ending of the names of Envoy's clusters: HTTP has none."""
    return ("", "_grpc") if state.grpc else ("",)


def chosen(state: GatewayState, version: int, speech: str) -> str:
    """The cluster that a version's share of the traffic goes to."""
    return cluster_name(state.fleet, version) + speech


def replicas(state: GatewayState, version: int, speech: str) -> str:
    """The cluster that holds a version's endpoints."""
    return f"{chosen(state, version, speech)}_replicas"


def mirrored(state: GatewayState, version: int, speech: str) -> str:
    """The cluster that copies of requests go to."""
    return f"{chosen(state, version, speech)}_mirror"


def endpoints_file(version: int, speech: str) -> str:
    """Where the endpoints of one version are, relative to the gateway's folder."""
    return f"eds/v{version}{speech}.json"


def clusters(state: GatewayState, folder: Path) -> list[Json]:
    """All clusters of all pools."""
    return [cluster for pool in state.pools for speech in speeches(state) for cluster in _clusters(state, pool, speech, folder)]


def endpoints(state: GatewayState, folder: Path) -> dict[str, Json]:
    """The files of all endpoints: name -> content."""
    return {
        endpoints_file(pool.version, speech): resources([_assignment(state, pool, speech, folder)])
        for pool in state.pools
        for speech in speeches(state)
    }


def names_of_chain(cluster: Json) -> list[str]:
    """The clusters that a chosen or mirrored one leads to."""
    return list(cluster.get("cluster_type", {}).get("typed_config", {}).get("clusters", ()))


def with_chains(names: set[str], present: Mapping[str, Json]) -> set[str]:
    """`names`, and the clusters that those among them that are `present` lead to."""
    return names.union(*(names_of_chain(present[name]) for name in names if name in present))


def _fallbacks(state: GatewayState, pool: GatewayPool) -> list[int]:
    """Versions in the order in which a request of this pool tries them. A canary answers for nobody but itself."""
    spare = [other.version for role in ("stable", "previous") for other in state.pools if other.role == role]
    return [pool.version, *(version for version in spare if version != pool.version)]


def _clusters(state: GatewayState, pool: GatewayPool, speech: str, folder: Path) -> list[Json]:
    patience, version = state.patience, pool.version
    limits = {
        "thresholds": [
            {
                "max_connections": _MANY,
                "max_pending_requests": _MANY,
                "max_requests": _MANY,
                "retry_budget": {
                    "budget_percent": {"value": patience.retry_percent},
                    "min_retry_concurrency": patience.concurrent_retries,
                },
            }
        ]
    }

    def aggregate(name: str, counted_as: str, versions: list[int]) -> Json:
        chain: Json = {
            "@type": TYPE + "extensions.clusters.aggregate.v3.ClusterConfig",
            "clusters": [replicas(state, each, speech) for each in versions],
        }
        return {
            "@type": TYPE + "config.cluster.v3.Cluster",
            "name": name,
            "alt_stat_name": counted_as,
            "connect_timeout": "1s",
            "lb_policy": "CLUSTER_PROVIDED",
            "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": chain},
            "circuit_breakers": limits,
        }

    own: Json = {
        "@type": TYPE + "config.cluster.v3.Cluster",
        "name": replicas(state, version, speech),
        "connect_timeout": "1s",
        "type": "EDS",
        # A replica that hangs holds its requests, and so attracts fewer new ones.
        "lb_policy": "LEAST_REQUEST",
        "eds_cluster_config": {"eds_config": watched(folder, endpoints_file(version, speech))},
        "circuit_breakers": limits,
        **({"typed_extension_protocol_options": _HTTP2} if speech else {}),
    }
    made = [aggregate(chosen(state, version, speech), cluster_name(state.fleet, version), _fallbacks(state, pool)), own]
    if pool.mirror:
        made.append(aggregate(mirrored(state, version, speech), mirrored(state, version, ""), [version]))
    return made


def _assignment(state: GatewayState, pool: GatewayPool, speech: str, folder: Path) -> Json:
    addresses: list[Json] = [address(host, port) for host, port in sorted(set(spoken(pool, speech)))]
    chain = _fallbacks(state, pool)
    if not any(spoken(other, speech) for other in state.pools if other.version in chain):
        addresses = [{"pipe": {"path": str(folder / NOBODY)}}]
    version = {"filter_metadata": {"trimtab": {"version": str(pool.version)}}}
    return {
        "@type": TYPE + "config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": replicas(state, pool.version, speech),
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": each}, "metadata": version} for each in addresses]}],
    }


def spoken(pool: GatewayPool, speech: str) -> tuple[Endpoint, ...]:
    """The endpoints of a pool for what is spoken."""
    return pool.grpc if speech else pool.endpoints

"""From a `GatewayState` to Envoy's configuration files. Pure: the same state gives the same files.

    bootstrap.json      read once at start: ports, the listener, what is counted
    eds/v<n>.json       the endpoints of one version
    cds/clusters.json   the clusters: two per version, see below
    rds/route.json      the route: weights, timeouts, retries

Each kind has a directory of its own, as Envoy reads a file again at every event in its directory: in one directory the
event of a cluster's endpoints could make it read a new route while the clusters that it names were still unread.

Two Envoy clusters per version. ``<fleet>_v<n>`` is what the route's weights name: an aggregate over the version's own
replicas first, then those of the stable pool, then those of the previous one. ``<fleet>_v<n>_replicas`` holds the endpoints.
**Counting is by intention to treat**: everything that becomes of a request whose lot fell on version n is counted under
``<fleet>_v<n>``, also what stable replicas did for it after its own had failed. So a sick version cannot hide behind its
fallback: its failed tries and the time its users waited stay under its name.

- ``upstream_rq_xx`` counts answers that went to clients once per request. Tries whose answer was thrown away and tried
  again are the same series with the label ``envoy_retry="retry"``: the sum over both is one count per answered try.
- ``upstream_rq_time`` is one value per request: from the request to the final answer, all tries and waits included.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving_stack.gateway.state import GatewayPool, GatewayState, Patience, check, cluster_name

Json = dict[str, Any]

BOOTSTRAP = "bootstrap.json"
CLUSTERS = "cds/clusters.json"
ROUTES = "rds/route.json"
NOBODY = "nobody.sock"
"""A socket that never exists. While a pool has no replica and no fallback has one, tries fail on it at once and come again
after a back-off, so that a request waits for a replica instead of being refused."""

BUCKETS_MS = (
    1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50, 60, 75, 90, 110, 130, 160, 200, 250, 300, 375, 450, 550, 700,
    850, 1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000, 7000, 10000,
)  # fmt: skip

_TYPE = "type.googleapis.com/envoy."
_ADMIN = "admin"
_MANY = 100_000  # circuit breakers: Trimtab decides what is too much, not the gateway


def endpoints_file(version: int) -> str:
    """Where the endpoints of one version are, relative to the gateway's folder."""
    return f"eds/v{version}.json"


def render(state: GatewayState, folder: Path) -> dict[str, Json]:
    """All files of the gateway: name relative to `folder` -> content. Raises SettingsError when the state is not valid."""
    check(state)
    files = {endpoints_file(pool.version): _endpoints(state, pool, folder) for pool in state.pools}
    files[CLUSTERS] = _resources([cluster for pool in state.pools for cluster in _clusters(state, pool, folder)])
    files[ROUTES] = _resources([_route(state)])
    files[BOOTSTRAP] = _bootstrap(state, folder)
    return files


def _resources(resources: list[Json]) -> Json:
    digest = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]
    return {"version_info": digest, "resources": resources}


def _fallbacks(state: GatewayState, pool: GatewayPool) -> list[int]:
    """Versions in the order in which a request of this pool tries them. A canary answers for nobody but itself."""
    spare = [other.version for role in ("stable", "previous") for other in state.pools if other.role == role]
    return [pool.version, *(version for version in spare if version != pool.version)]


def _replicas(state: GatewayState, version: int) -> str:
    return f"{cluster_name(state.fleet, version)}_replicas"


def _clusters(state: GatewayState, pool: GatewayPool, folder: Path) -> list[Json]:
    limits = {
        "thresholds": [
            {
                "max_connections": _MANY,
                "max_pending_requests": _MANY,
                "max_requests": _MANY,
                "max_retries": state.patience.concurrent_retries,
            }
        ]
    }
    chosen: Json = {
        "@type": _TYPE + "config.cluster.v3.Cluster",
        "name": cluster_name(state.fleet, pool.version),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": _TYPE + "extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [_replicas(state, version) for version in _fallbacks(state, pool)],
            },
        },
        "circuit_breakers": limits,
    }
    replicas: Json = {
        "@type": _TYPE + "config.cluster.v3.Cluster",
        "name": _replicas(state, pool.version),
        "connect_timeout": "1s",
        "type": "EDS",
        # A replica that hangs holds its requests, and so attracts fewer new ones.
        "lb_policy": "LEAST_REQUEST",
        "eds_cluster_config": {"eds_config": _watched(folder, endpoints_file(pool.version))},
        "circuit_breakers": limits,
    }
    return [chosen, replicas]


def _watched(folder: Path, name: str) -> Json:
    path = folder / name
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
    }


def _endpoints(state: GatewayState, pool: GatewayPool, folder: Path) -> Json:
    addresses: list[Json] = [
        {"socket_address": {"address": host, "port_value": port}} for host, port in sorted(set(pool.endpoints))
    ]
    chain = _fallbacks(state, pool)
    if not any(other.endpoints for other in state.pools if other.version in chain):
        addresses = [{"pipe": {"path": str(folder / NOBODY)}}]
    version = {"filter_metadata": {"trimtab": {"version": str(pool.version)}}}
    endpoints = [{"endpoint": {"address": address}, "metadata": version} for address in addresses]
    return _resources(
        [
            {
                "@type": _TYPE + "config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": _replicas(state, pool.version),
                "endpoints": [{"lb_endpoints": endpoints}],
            }
        ]
    )


def _route(state: GatewayState) -> Json:
    """Weights by version. When no pool has any, everything goes to the stable one."""
    patience = state.patience
    weighted = [pool for pool in state.pools if pool.weight > 0] or [pool for pool in state.pools if pool.role == "stable"]
    action: Json
    if weighted:
        action = {"route": _forward(state, weighted, patience)}
    else:
        action = {"direct_response": {"status": 503, "body": {"inline_string": f"fleet {state.fleet} has no pool\n"}}}
    return {
        "@type": _TYPE + "config.route.v3.RouteConfiguration",
        "name": state.fleet,
        "virtual_hosts": [
            {
                "name": state.fleet,
                "domains": ["*"],
                "include_attempt_count_in_response": True,
                "routes": [
                    {
                        "match": {"prefix": "/"},
                        "response_headers_to_add": [
                            {
                                "header": {"key": "x-trimtab-version", "value": "%UPSTREAM_METADATA(trimtab:version)%"},
                                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                            }
                        ],
                        **action,
                    }
                ],
            }
        ],
    }


def named_clusters(routes: Json, clusters: Mapping[str, Json]) -> set[str]:
    """The clusters that rendered `routes` send to, and those that these fall back on. Raises KeyError when it is none of ours."""
    route = routes["resources"][0]["virtual_hosts"][0]["routes"][0].get("route")
    weighted = {cluster["name"] for cluster in route["weighted_clusters"]["clusters"]} if route else set()
    chains = [clusters[name]["cluster_type"]["typed_config"]["clusters"] for name in weighted if name in clusters]
    return weighted.union(*chains)


def _forward(state: GatewayState, weighted: list[GatewayPool], patience: Patience) -> Json:
    alone = sum(len(set(pool.endpoints)) for pool in state.pools if pool.role != "canary") < 2
    return {
        "weighted_clusters": {
            "clusters": [
                {
                    "name": cluster_name(state.fleet, pool.version),
                    "weight": pool.weight or 100,
                    "response_headers_to_add": [
                        {
                            "header": {"key": "x-trimtab-assigned", "value": str(pool.version)},
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    ],
                }
                for pool in weighted
            ]
        },
        "timeout": _seconds(patience.request_timeout),
        "hedge_policy": {"hedge_on_per_try_timeout": True},
        "retry_policy": {
            "retry_on": "5xx,reset,connect-failure,refused-stream",
            "num_retries": patience.retries,
            "per_try_timeout": _seconds(patience.hedge_after_alone if alone else patience.hedge_after),
            "retry_back_off": {"base_interval": _seconds(patience.backoff), "max_interval": _seconds(patience.backoff_max)},
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": _TYPE + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }
            ],
            "host_selection_retry_max_attempts": 5,
            # Two tries in the request's own pool, the next two in the fallback, and so round.
            "retry_priority": {
                "name": "envoy.retry_priorities.previous_priorities",
                "typed_config": {
                    "@type": _TYPE + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                    "update_frequency": 2,
                },
            },
        },
    }


def _seconds(value: float) -> str:
    return f"{value:.3f}s"


def _bootstrap(state: GatewayState, folder: Path) -> Json:
    return {
        "node": {"id": "gateway", "cluster": state.fleet},
        "admin": {"address": _address("127.0.0.1", state.admin_port)},
        "stats_flush_interval": "0.500s",  # histograms reach the metrics page only at a flush
        "stats_config": _stats(state.fleet),
        "dynamic_resources": {"cds_config": _watched(folder, CLUSTERS)},
        "static_resources": {
            "listeners": [_listener(state, folder), *_metrics_listener(state)],
            "clusters": _admin_cluster(state),
        },
    }


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def _stats(fleet: str) -> Json:
    """Keeps what Trimtab reads and what tells a refused configuration; everything else is not even counted."""
    kept = (
        rf"cluster\.{fleet}_v\d+\.(retry\.)?upstream_rq_([1-5]xx|completed|time|timeout|retry|retry_success|retry_overflow|rx_reset)",
        rf"cluster\.{fleet}_v\d+_replicas\.(upstream_rq_(total|active|pending_active)|upstream_cx_(total|connect_fail)|membership_(total|healthy))",
        rf"cluster\.{fleet}_v\d+_replicas\.update_rejected",
        rf"http\.{fleet}\.(downstream_rq_(total|active|[1-5]xx|time|timeout|rx_reset)|rds\.\w+\.update_rejected)",
        r"cluster_manager\.cds\.update_rejected|server\.(live|uptime|memory_allocated)",
    )
    return {
        "stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": "|".join(kept)}}]}},
        "stats_tags": [{"tag_name": "envoy.retry", "regex": r"^cluster\.[^.]+\.((retry)\.)upstream_rq_"}],
        "histogram_bucket_settings": [{"match": {"safe_regex": {"regex": ".*_rq_time"}}, "buckets": list(BUCKETS_MS)}],
    }


def _listener(state: GatewayState, folder: Path) -> Json:
    return {
        "name": state.fleet,
        "address": _address(state.host, state.listen_port),
        "filter_chains": _http(
            state.fleet, {"rds": {"route_config_name": state.fleet, "config_source": _watched(folder, ROUTES)}}
        ),
    }


def _metrics_listener(state: GatewayState) -> list[Json]:
    """The two harmless pages of the admin port, opened to others; the rest of it stays on loopback."""
    if state.metrics_port is None:
        return []
    routes = [{"match": {"path": path}, "route": {"cluster": _ADMIN}} for path in ("/stats/prometheus", "/ready")]
    config = {"name": "metrics", "virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": routes}]}
    return [
        {
            "name": "metrics",
            "address": _address(state.host, state.metrics_port),
            "filter_chains": _http("metrics", {"route_config": config}),
        }
    ]


def _admin_cluster(state: GatewayState) -> list[Json]:
    if state.metrics_port is None:
        return []
    endpoint = {"endpoint": {"address": _address("127.0.0.1", state.admin_port)}}
    assignment = {"cluster_name": _ADMIN, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return [{"name": _ADMIN, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment}]


def _http(prefix: str, routes: Json) -> list[Json]:
    manager = {
        "@type": _TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": prefix,
        "generate_request_id": False,
        **routes,
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": _TYPE + "extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]

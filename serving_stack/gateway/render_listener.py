"""Envoy's bootstrap, from a `GatewayState`: listeners, filters, what is counted. Read once, when Envoy starts."""

from __future__ import annotations

from pathlib import Path

from serving_stack.gateway.envoy_json import TYPE, Json, address, resources, seconds, watched
from serving_stack.gateway.render_routes import ACCESS, ADMISSION
from serving_stack.gateway.state import Admission, GatewayState, Tls

CLUSTERS = "cds/clusters.json"
ROUTES = "rds/route.json"
CERTIFICATES = "sds/server.json"

BUCKETS_MS = (
    1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50, 60, 75, 90, 110, 130, 160, 200, 250, 300, 375, 450, 550, 700,
    850, 1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000, 7000, 10000,
)  # fmt: skip

_ADMIN = "admin"
_MANAGER = TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def bootstrap(state: GatewayState, folder: Path) -> Json:
    """The file that Envoy is started with."""
    return {
        "node": {"id": "gateway", "cluster": state.fleet},
        "admin": {"address": address("127.0.0.1", state.admin_port)},
        "stats_flush_interval": "0.500s",  # histograms reach the metrics page only at a flush
        "stats_config": _stats(state.fleet),
        # A route whose regular expression is longer than Envoy likes would make it refuse the whole table.
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 10_000}}]},
        "dynamic_resources": {"cds_config": watched(folder, CLUSTERS)},
        "static_resources": {
            "listeners": [_listener(state, folder), *_metrics_listener(state)],
            "clusters": _admin_cluster(state),
        },
    }


def certificates(tls: Tls) -> Json:
    """The file that names certificate and key; Envoy watches their directory, and reads both anew after a rename there."""
    where = {"watched_directory": {"path": str(Path(tls.certificate).parent)}}
    pair = {"certificate_chain": {"filename": tls.certificate}, "private_key": {"filename": tls.key}, **where}
    secret = TYPE + "extensions.transport_sockets.tls.v3.Secret"
    return resources([{"@type": secret, "name": "server", "tls_certificate": pair}])


def _stats(fleet: str) -> Json:
    """Keeps what Trimtab reads and what tells a refused configuration; everything else is not even counted."""
    answered = r"upstream_rq_([1-5]xx|completed|time|timeout|retry|retry_success|retry_overflow|rx_reset)"
    kept = (
        rf"cluster\.{fleet}_v\d+\.(retry\.)?{answered}",
        rf"cluster\.{fleet}_v\d+\.grpc\.(success|failure|total|\d+)",
        rf"cluster\.{fleet}_v\d+_mirror\.upstream_rq_([1-5]xx|time)",
        rf"cluster\.{fleet}_v\d+(_grpc)?_replicas\.(upstream_rq_(total|active|pending_active)|upstream_cx_(total|connect_fail)"
        r"|membership_(total|healthy)|update_rejected)",
        rf"http\.{fleet}\.(downstream_rq_(total|active|[1-5]xx|time|timeout|rx_reset)|rds\.\w+\.update_rejected)",
        rf"http\.{fleet}\.adaptive_concurrency\.gradient_controller\.(concurrency_limit|rq_blocked|sample_rtt_msecs)",
        r"cluster_manager\.cds\.update_rejected|server\.(live|uptime|memory_allocated)",
    )
    return {
        "stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": "|".join(kept)}}]}},
        "stats_tags": [{"tag_name": "envoy.retry", "regex": r"^cluster\.[^.]+\.((retry)\.)upstream_rq_"}],
        "histogram_bucket_settings": [{"match": {"safe_regex": {"regex": ".*_rq_time"}}, "buckets": list(BUCKETS_MS)}],
    }


def _listener(state: GatewayState, folder: Path) -> Json:
    routes = {"rds": {"route_config_name": state.fleet, "config_source": watched(folder, ROUTES)}}
    chain = _chain({"stat_prefix": state.fleet, **routes, **_answers(state.admission)}, _filters(state))
    if state.tls:
        chain["transport_socket"] = _tls(state.tls, folder)
    return {"name": state.fleet, "address": address(state.host, state.listen_port), "filter_chains": [chain]}


def _filters(state: GatewayState) -> list[Json]:
    """From the outermost to the innermost: who asks, what gRPC answers, how much is under way."""
    made = []
    if state.tokens:
        made.append(
            _filter(
                ACCESS,
                "api_key_auth.v3.ApiKeyAuth",
                key_sources=[{"header": "Authorization"}],
                forwarding={"hide_credentials": True},
            )
        )
    if state.grpc:
        made.append(_filter("grpc", "grpc_stats.v3.FilterConfig", stats_for_all_methods=False))
    if limit := state.admission:
        made.append(
            _filter(
                ADMISSION,
                "adaptive_concurrency.v3.AdaptiveConcurrency",
                gradient_controller_config={
                    "sample_aggregate_percentile": {"value": 50},
                    "concurrency_limit_params": {
                        "max_concurrency_limit": limit.most,
                        "min_concurrency_limit": limit.least,
                        "concurrency_update_interval": seconds(limit.every),
                    },
                    # A fixed goal: to measure how fast the fleet can be, Envoy would refuse requests now and then.
                    "min_rtt_calc_params": {
                        "fixed_value": seconds(limit.target),
                        "min_concurrency": limit.least,
                        "buffer": {"value": 0},
                    },
                },
            )
        )
    return made


def _answers(admission: Admission | None) -> Json:
    """What the gateway answers itself: words as Triton would put them, and when to come again."""
    grpc = {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}}
    words = {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}}

    def when(status: int, more: Json | None = None) -> Json:
        compared = {"comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": "none"}}}
        condition: Json = {"status_code_filter": compared}
        return {"and_filter": {"filters": [condition, more]}} if more else condition

    mappers: list[Json] = []
    for status, name, value in (
        (503, "retry-after", str(admission.retry_after if admission else 1)),
        (401, "www-authenticate", "Bearer"),
    ):
        added = {"headers_to_add": [{"header": {"key": name, "value": value}}]}
        mappers.append({"filter": when(status, grpc), "body_format_override": words, **added})
        mappers.append({"filter": when(status), **added})
    mappers.append({"filter": grpc, "body_format_override": words})
    return {"local_reply_config": {"mappers": mappers, "body_format": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}}}


def _tls(tls: Tls, folder: Path) -> Json:
    common: Json = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [{"name": "server", "sds_config": watched(folder, CERTIFICATES)}],
    }
    if tls.client_ca:
        common["validation_context"] = {"trusted_ca": {"filename": tls.client_ca}}
    context = TYPE + "extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    wanted = {"require_client_certificate": tls.client_ca is not None}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": context, "common_tls_context": common, **wanted},
    }


def _metrics_listener(state: GatewayState) -> list[Json]:
    """The two harmless pages of the admin port, opened to others; the rest of it stays on loopback."""
    if state.metrics_port is None:
        return []
    pages = [{"match": {"path": path}, "route": {"cluster": _ADMIN}} for path in ("/stats/prometheus", "/ready")]
    config = {"name": "metrics", "virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": pages}]}
    chain = _chain({"stat_prefix": "metrics", "route_config": config}, [])
    return [{"name": "metrics", "address": address(state.host, state.metrics_port), "filter_chains": [chain]}]


def _admin_cluster(state: GatewayState) -> list[Json]:
    if state.metrics_port is None:
        return []
    endpoint = {"endpoint": {"address": address("127.0.0.1", state.admin_port)}}
    assignment = {"cluster_name": _ADMIN, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return [{"name": _ADMIN, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment}]


def _chain(manager: Json, filters: list[Json]) -> Json:
    whole = {
        "@type": _MANAGER,
        "generate_request_id": False,
        **manager,
        "http_filters": [*filters, _filter("router", "router.v3.Router")],
    }
    return {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": whole}]}


def _filter(name: str, kind: str, **settings: object) -> Json:
    return {"name": name, "typed_config": {"@type": f"{TYPE}extensions.filters.http.{kind}", **settings}}

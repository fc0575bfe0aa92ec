"""Recording rules: rates and percentiles that dashboards and alerts share, computed once."""

from __future__ import annotations

from dashboards.rules.model import Record

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
"""The windows of the burn-rate alerts."""

# The gateway's cluster is <fleet>_v<version>; <fleet>_v<version>_replicas holds the endpoints, envoy_retry the repeated tries.
_CLUSTER = 'role="gateway", envoy_retry="", envoy_cluster_name=~".+_v[0-9]+"'


def _by_version(expr: str) -> str:
    return f'label_replace({expr}, "version", "$1", "envoy_cluster_name", ".+_v([0-9]+)")'


def _versions(operation: str, rates: str) -> str:
    return f"{operation} by (fleet, version) ({_by_version(rates)})"


def _of_version(quantile: float, window: str) -> str:
    buckets = _by_version(f"rate(envoy_cluster_upstream_rq_time_bucket{{{_CLUSTER}}}[{window}])")
    return f"histogram_quantile({quantile}, sum by (fleet, version, le) ({buckets})) / 1000"


def error_ratio(window: str) -> str:
    """The recording rule of failed requests over all, per fleet."""
    return f"fleet:error_ratio:rate{window}"


def slow_buckets(window: str) -> str:
    """The recording rule of the fleet's request times, from which any quantile can be taken."""
    return f"fleet:request_milliseconds_bucket:rate{window}"


# Where no 5xx series is there yet, a version that answers has none: 0, not unknown.
_VERSION_ANSWERED = _versions("sum", f"rate(envoy_cluster_upstream_rq_xx{{{_CLUSTER}}}[1m])")
_VERSION_FAILED = _versions("sum", f'rate(envoy_cluster_upstream_rq_xx{{{_CLUSTER}, envoy_response_code_class="5"}}[1m])')
_ENDED = 'sum by (fleet, version) (rate(trimtab_traffic_requests_total{role="app", outcome=~"ok|wrong"}[1m]))'
_WRONG = 'sum by (fleet, version) (rate(trimtab_traffic_requests_total{role="app", outcome="wrong"}[1m]))'

FLEETS: list[Record] = [
    Record("fleet:requests:rate1m", 'sum by (fleet) (rate(envoy_http_downstream_rq_total{role="gateway"}[1m]))'),
    Record("fleet:requests_ended:rate5m", 'sum by (fleet) (rate(envoy_http_downstream_rq_xx{role="gateway"}[5m]))'),
    Record(
        "fleet:requests_failed:rate5m",
        'sum by (fleet) (rate(envoy_http_downstream_rq_xx{role="gateway", envoy_response_code_class="5"}[5m]))',
    ),
    Record(error_ratio("5m"), "fleet:requests_failed:rate5m / (fleet:requests_ended:rate5m > 0)"),
    Record(slow_buckets("5m"), f"sum by (fleet, le) (rate(envoy_cluster_upstream_rq_time_bucket{{{_CLUSTER}}}[5m]))"),
    Record("fleet:latency_p99_seconds:rate5m", f"histogram_quantile(0.99, {slow_buckets('5m')}) / 1000"),
    Record(
        "fleet:demand_of_capacity:ratio",
        "fleet:requests:rate1m / on (fleet)"
        " ((sum by (fleet) (trimtab_pool_replicas_in_traffic) * on (fleet) trimtab_capacity_per_replica) > 0)",
    ),
]

# Longer windows come from what was recorded: three days of a gateway's raw histograms would be millions of samples.
WINDOWED: list[Record] = [
    record
    for window in WINDOWS[1:]
    for record in (
        Record(
            error_ratio(window),
            f"sum_over_time(fleet:requests_failed:rate5m[{window}]) / (sum_over_time(fleet:requests_ended:rate5m[{window}]) > 0)",
        ),
        Record(slow_buckets(window), f"avg_over_time({slow_buckets('5m')}[{window}])"),
    )
] + [Record("fleet:error_budget_left:3d", f"1 - {error_ratio('3d')} / on (fleet) trimtab_slo_error_ratio")]

VERSIONS: list[Record] = [
    Record("version:requests:rate1m", _VERSION_ANSWERED),
    Record("version:error_ratio:rate1m", f"({_VERSION_FAILED} or 0 * {_VERSION_ANSWERED}) / ({_VERSION_ANSWERED} > 0)"),
    Record("version:latency_p50_seconds:rate1m", _of_version(0.5, "1m")),
    Record("version:latency_p99_seconds:rate1m", _of_version(0.99, "1m")),
    Record("version:wrong_ratio:rate1m", f"({_WRONG} or 0 * {_ENDED}) / ({_ENDED} > 0)"),
]

# The model beside the fleet's own that takes feedback is not what users wait for.
_REPLICA = 'role="triton", model!~".+_feedback"'


def _of_target(expr: str) -> str:
    return f"sum by (fleet, target, pool, version) ({expr})"


def _per_request(name: str) -> str:
    answered = _of_target(f"rate(nv_inference_request_success{{{_REPLICA}}}[1m])")
    return f"{_of_target(f'rate({name}{{{_REPLICA}}}[1m])')} / 1e6 / ({answered} > 0)"


# A week of raw counters of hundreds of replicas is too much for a panel that is to answer within a second.
TARGETS: list[Record] = [
    Record("target:requests:rate1m", _of_target(f"rate(nv_inference_request_success{{{_REPLICA}}}[1m])")),
    Record("target:requests_failed:rate1m", _of_target(f"rate(nv_inference_request_failure{{{_REPLICA}}}[1m])")),
    Record("target:infer_seconds:rate1m", _per_request("nv_inference_compute_infer_duration_us")),
    Record("target:queue_seconds:rate1m", _per_request("nv_inference_queue_duration_us")),
    Record("target:busy_ratio:rate1m", f"{_of_target(f'rate(nv_inference_compute_infer_duration_us{{{_REPLICA}}}[1m])')} / 1e6"),
    Record(
        "target:confidence:rate1m",
        f"{_of_target(f'rate(trimtab_model_confidence_sum{{{_REPLICA}}}[1m])')}"
        f" / ({_of_target(f'rate(trimtab_model_confidence_count{{{_REPLICA}}}[1m])')} > 0)",
    ),
    Record("fleet:score:max", "max by (fleet, detector) (trimtab_score)"),
]

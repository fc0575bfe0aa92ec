"""Every PromQL query of the dashboards, by name and apart from any layout.

They read three kinds of series: raw pages of the fleet (labels `fleet`, `role`, `target`, `pool`, `version` come from the targets
file), what `trimtab metrics` says from the topics, and recording rules (``level:metric:operation``). `$fleet` is the dashboards'
variable; `$__rate_interval` is Grafana's.
"""

from __future__ import annotations

from dataclasses import dataclass

from dashboards.queries_adapters import ADAPTERS
from dashboards.queries_quality import QUALITY

FLEET = 'fleet=~"$fleet"'
RATE = "[$__rate_interval]"
# DCGM writes numbers above 9e18 for "no value": unknown, not hot.
KNOWN = "< 1e15"
# A heat map over replicas needs one series per replica; everything else is added up per pool or version.
REPLICA = f'{{{FLEET}, role="triton", model!~".+_feedback"}}'


@dataclass(frozen=True)
class Query:
    """One query: what a series of it is called, and whether only its newest value is shown (a table or a number)."""

    expr: str
    legend: str = ""
    instant: bool = False


def _gpu(name: str) -> str:
    return f"DCGM_FI_DEV_{name}{{{FLEET}}} {KNOWN}"


def _age(name: str, labels: str = "") -> str:
    return f"time() - {name}{{{labels}}}"


_GPU = "gpu {{gpu}} {{pod}}"

QUERIES: dict[str, Query] = {
    # Fleets: all at a glance.
    "fleets_requests": Query(f"fleet:requests:rate1m{{{FLEET}}}", "{{fleet}}"),
    "fleets_error_ratio": Query(f"fleet:error_ratio:rate5m{{{FLEET}}}", "{{fleet}}"),
    "fleets_error_of_slo": Query(f"fleet:error_ratio:rate5m{{{FLEET}}} / on (fleet) trimtab_slo_error_ratio", "{{fleet}}"),
    "fleets_p99": Query(f"fleet:latency_p99_seconds:rate5m{{{FLEET}}}", "{{fleet}}"),
    "fleets_p99_of_slo": Query(
        f"fleet:latency_p99_seconds:rate5m{{{FLEET}}} / on (fleet) trimtab_slo_latency_seconds", "{{fleet}}"
    ),
    "fleets_budget_left": Query(f"fleet:error_budget_left:3d{{{FLEET}}}", "{{fleet}}", instant=True),
    "fleets_demand_of_capacity": Query(f"fleet:demand_of_capacity:ratio{{{FLEET}}}", "{{fleet}}"),
    "fleets_replicas_ready": Query(f'sum by (fleet) (trimtab_pool_replicas{{{FLEET}, phase="ready"}})', "{{fleet}} ready"),
    "fleets_findings_open": Query(f"sum by (fleet, kind, severity) (trimtab_findings_open{{{FLEET}}})", "{{fleet}} {{kind}}"),
    "fleets_open_total": Query(f'sum (trimtab_findings_open{{{FLEET}, severity!="info"}})', "open", instant=True),
    "fleets_decisions_hour": Query(
        f'sum by (fleet, action) (increase(trimtab_fleet_decisions_total{{{FLEET}, outcome="applied"}}[1h]))',
        "{{fleet}} {{action}}",
    ),
    "fleets_wanted_version": Query(f"trimtab_wanted_version{{{FLEET}}}", "{{fleet}}", instant=True),
    "fleets_hands_off": Query(f"max by (fleet) (trimtab_hands_off{{{FLEET}}})", "{{fleet}}", instant=True),
    # Fleet: rate, errors, duration per pool; canary against stable; what was decided.
    "fleet_requests_by_version": Query(f"version:requests:rate1m{{{FLEET}}}", "version {{version}}"),
    "fleet_errors_by_version": Query(f"version:error_ratio:rate1m{{{FLEET}}}", "version {{version}}"),
    "fleet_p50_by_version": Query(f"version:latency_p50_seconds:rate1m{{{FLEET}}}", "version {{version}} p50"),
    "fleet_p99_by_version": Query(f"version:latency_p99_seconds:rate1m{{{FLEET}}}", "version {{version}} p99"),
    "fleet_slo_latency": Query(f"trimtab_slo_latency_seconds{{{FLEET}}}", "promised p99"),
    "fleet_wrong_by_version": Query(f"version:wrong_ratio:rate1m{{{FLEET}}}", "version {{version}}"),
    "fleet_tries_failed": Query(
        f'sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_rq_retry{{{FLEET}, envoy_cluster_name=~".+_v[0-9]+"}}{RATE}))',
        "{{envoy_cluster_name}}",
    ),
    "fleet_weights": Query(f"trimtab_pool_weight{{{FLEET}}}", "{{pool}} (version {{version}})"),
    "fleet_replicas_wanted": Query(f"sum by (pool) (trimtab_pool_replicas_wanted{{{FLEET}}})", "{{pool}} wanted"),
    "fleet_replicas_phase": Query(f"sum by (pool, phase) (trimtab_pool_replicas{{{FLEET}}}) > 0", "{{pool}} {{phase}}"),
    "fleet_in_traffic": Query(f"sum by (pool) (trimtab_pool_replicas_in_traffic{{{FLEET}}})", "{{pool}} in traffic"),
    "fleet_demand": Query(f"fleet:requests:rate1m{{{FLEET}}}", "arrivals"),
    "fleet_capacity": Query(
        f"sum by (fleet) (trimtab_pool_replicas_in_traffic{{{FLEET}}}) * on (fleet) trimtab_capacity_per_replica",
        "capacity in traffic",
    ),
    "fleet_capacity_most": Query(
        f'trimtab_replica_bounds{{{FLEET}, bound="max"}} * on (fleet) trimtab_capacity_per_replica', "capacity at most"
    ),
    "fleet_scores": Query(f"max by (detector) (fleet:score:max{{{FLEET}}})", "{{detector}}"),
    "fleet_findings": Query(f"trimtab_finding_firing{{{FLEET}}}", "{{kind}} {{subject}}"),
    "fleet_decisions": Query(
        f"sum by (action, outcome) (increase(trimtab_fleet_decisions_total{{{FLEET}}}{RATE}))", "{{action}} {{outcome}}"
    ),
    # Replicas and GPUs: use, saturation, errors.
    "replica_requests": Query(f"target:requests:rate1m{{{FLEET}}}", "{{target}}"),
    "replica_failures": Query(f"target:requests_failed:rate1m{{{FLEET}}}", "{{target}}"),
    "replica_infer_seconds": Query(f"target:infer_seconds:rate1m{{{FLEET}}}", "{{target}}"),
    "replica_queue_seconds": Query(f"target:queue_seconds:rate1m{{{FLEET}}}", "{{target}}"),
    "replica_pending": Query(f"nv_inference_pending_request_count{REPLICA}", "{{target}}"),
    "replica_busy": Query(f"target:busy_ratio:rate1m{{{FLEET}}}", "{{target}}"),
    "replica_memory": Query(f"trimtab_model_resident_memory_bytes{REPLICA}", "{{target}}"),
    "replica_confidence": Query(f"target:confidence:rate1m{{{FLEET}}}", "{{target}}"),
    "replica_up": Query(f"up{REPLICA}", "{{target}}"),
    "gpu_utilisation": Query(f"{_gpu('GPU_UTIL')}", _GPU),
    "gpu_memory_used": Query(f"({_gpu('FB_USED')}) / (({_gpu('FB_USED')}) + ({_gpu('FB_FREE')}))", _GPU),
    "gpu_power": Query(_gpu("POWER_USAGE"), _GPU),
    "gpu_temperature": Query(_gpu("GPU_TEMP"), _GPU),
    "gpu_memory_temperature": Query(_gpu("MEMORY_TEMP"), _GPU),
    "gpu_throttle": Query(
        f"({_gpu('SM_CLOCK')}) / on (fleet, modelName) group_left max by (fleet, modelName) ({_gpu('SM_CLOCK')})", _GPU
    ),
    "gpu_xid": Query(f"max by (fleet, Hostname, gpu, UUID, pod) ({_gpu('XID_ERRORS')})", _GPU, instant=True),
    "gpu_xid_changes": Query(f"changes(DCGM_FI_DEV_XID_ERRORS{{{FLEET}}}[10m])", _GPU),
    "gpu_rows_uncorrectable": Query(_gpu("UNCORRECTABLE_REMAPPED_ROWS"), _GPU),
    "gpu_rows_correctable": Query(_gpu("CORRECTABLE_REMAPPED_ROWS"), _GPU),
    "gpu_remap_failed": Query(_gpu("ROW_REMAP_FAILURE"), _GPU),
    "gpu_pcie_replays": Query(f"increase(DCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{FLEET}}}[10m])", _GPU),
    "gpu_frozen": Query(f"sum by (fleet) (changes(DCGM_FI_DEV_POWER_USAGE{{{FLEET}}}[5m]) == bool 0)", "frozen"),
    # Quality: what the answers are like.
    **{name: Query(expr, legend) for name, (expr, legend) in QUALITY.items()},
    # Detectors: are they calibrated, do they speak, what did they find.
    "detector_scores": Query(f"fleet:score:max{{{FLEET}}}", "{{fleet}} {{detector}}"),
    "detector_worst": Query(f"topk(20, trimtab_score{{{FLEET}}})", "{{detector}} {{target}}", instant=True),
    "detector_ensemble": Query(f'trimtab_score{{{FLEET}, detector="ensemble"}}', "{{target}}"),
    "detector_alarm": Query("max (trimtab_score_alarm)", "alarm"),
    "detector_false_alarm_budget": Query(
        f"sum by (detector) (increase(trimtab_scores_alarming_total{{{FLEET}}}[1h]))"
        f" / (sum by (detector) (increase(trimtab_score_tail_ratio_count{{{FLEET}}}[1h])) > 0)"
        " / on () group_left () (1 - max (trimtab_score_alarm))",
        "{{detector}}",
    ),
    "detector_drift": Query(
        f"sum by (detector) (increase(trimtab_score_tail_ratio_sum{{{FLEET}}}[1h]))"
        f" / (sum by (detector) (increase(trimtab_score_tail_ratio_count{{{FLEET}}}[1h])) > 0)",
        "{{detector}}",
    ),
    "detector_tails": Query(
        f'sum by (le) (increase(trimtab_score_tail_ratio_bucket{{{FLEET}, detector="ensemble"}}{RATE}))', "{{le}}"
    ),
    "detector_silence": Query(_age("trimtab_detector_last_score_timestamp_seconds", FLEET), "{{fleet}} {{detector}}"),
    "detector_model_age": Query(_age("trimtab_model_trained_timestamp_seconds", FLEET), "{{fleet}}"),
    "detector_findings_day": Query(f"sum by (kind) (increase(trimtab_findings_total{{{FLEET}}}[1d]))", "{{kind}}", instant=True),
    "detector_unanswered_day": Query(
        f"sum by (kind, answered) (increase(trimtab_findings_ended_total{{{FLEET}}}[1d]))",
        "{{kind}}, act: {{answered}}",
        instant=True,
    ),
    "detector_rate": Query(f"sum by (detector) (rate(trimtab_score_tail_ratio_count{{{FLEET}}}{RATE}))", "{{detector}}"),
    # Trimtab itself.
    "self_up": Query('up{job="trimtab"}', "{{part}} {{instance}}"),
    "self_lag": Query("sum by (group, topic) (trimtab_consumer_lag_records)", "{{group}} {{topic}}"),
    "self_freshness": Query(_age("trimtab_last_message_timestamp_seconds", FLEET), "{{fleet}} {{topic}}"),
    "self_scrapes": Query(f"sum by (role, result) (rate(trimtab_collect_scrapes_total{RATE}))", "{{role}} {{result}}"),
    "self_scrape_seconds": Query(
        f"histogram_quantile(0.99, sum by (le, role) (rate(trimtab_collect_scrape_seconds_bucket{RATE})))", "{{role}} p99"
    ),
    "self_targets": Query("sum (trimtab_collect_targets)", "targets"),
    "self_spool": Query("sum by (instance) (trimtab_collect_spool_snapshots)", "waiting {{instance}}"),
    "self_lost": Query(f"sum (increase(trimtab_collect_lost_total{RATE}))", "lost"),
    "self_rejected": Query("sum by (topic) (trimtab_rejected_records)", "{{topic}}"),
    "self_job_running": Query("max (trimtab_detect_job_running)", "running"),
    "self_heartbeat_age": Query(_age("trimtab_detect_heartbeat_timestamp_seconds"), "heartbeat {{instance}}"),
    "self_checkpoint_age": Query(_age("trimtab_detect_checkpoint_timestamp_seconds"), "checkpoint {{instance}}"),
    "self_step_seconds": Query(
        f"histogram_quantile(0.99, sum by (le, instance) (rate(trimtab_autoscaler_step_seconds_bucket{RATE})))",
        "{{instance}} p99",
    ),
    "self_act_after_seconds": Query(
        "histogram_quantile(0.95, sum by (le) (increase(trimtab_decision_after_finding_seconds_bucket[1h])))", "p95"
    ),
    "self_acts_failed": Query('sum by (fleet, action) (trimtab_fleet_decisions_total{outcome="failed"})', "{{fleet}} {{action}}"),
    "self_operator_leads": Query("sum (trimtab_operator_leads) or vector(0)", "operators that lead"),
    "self_operator_fleets": Query("sum (trimtab_operator_fleets) or vector(0)", "fleets followed"),
    "self_memory": Query('process_resident_memory_bytes{job="trimtab"}', "{{part}}"),
    "self_cpu": Query(f'rate(process_cpu_seconds_total{{job="trimtab"}}{RATE})', "{{part}}"),
    "self_left_out": Query("sum by (limit) (trimtab_metrics_left_out_total)", "{{limit}}"),
    "self_builds": Query("count by (service, version) (trimtab_build_info)", "{{service}} {{version}}", instant=True),
    # Adapters: many tasks on one base network.
    **{name: Query(expr, legend) for name, (expr, legend) in ADAPTERS.items()},
    # Annotations.
    "mark_decisions": Query(f'1000 * trimtab_fleet_decision_timestamp_seconds{{{FLEET}, outcome!="refused"}}'),
    "mark_findings": Query(f'trimtab_finding_firing{{{FLEET}, severity!="info"}}'),
}
"""By name. A test runs each of them against a Prometheus that scraped a played incident, and each returns data."""

VARIABLES: dict[str, str] = {"fleet": "label_values(trimtab_wanted_version, fleet)"}
"""Dashboard variables and the queries that fill them."""

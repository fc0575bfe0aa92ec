"""How long each dashboard panel takes at a week of data for 200 replicas, with the recording rules and without them.

A real Prometheus answers over blocks that promtool made of 7 days of samples, a minute apart: 4 fleets of 50 replicas with a GPU
each. A panel's queries are asked as Grafana asks them, over the whole range, one after the other. The alternative beside it is
the same panel with each recorded name replaced by the rule's own expression.
"""

from __future__ import annotations

import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.frame import Cell, Options, Result
from benchmarks.prometheus_process import Prometheus
from dashboards.build import dashboards
from dashboards.rules.files import records
from trimtab.errors import Missing

STEP = 60
BLOCK = 18 * 3600
"""What a Prometheus that keeps 15 days compacts to."""
POINTS = 1000
"""Of a panel that does not say how many it wants: about its width."""
REPEATS = 3
DETECTORS = ("ensemble", "canary", "cnn_lstm", "history", "invariants", "isolation_forest", "peers")
_BOUNDS = ("5", "10", "20", "40", "60", "90", "130", "200", "250", "300", "450", "700", "1000", "1500", "2500", "5000", "+Inf")


@dataclass(frozen=True)
class Asked:
    """What a panel cost: time on the clock, processor time of Prometheus, and how many series came."""

    seconds: float
    cpu_seconds: float
    series: int


@dataclass(frozen=True)
class Size:
    """How much is filled in."""

    fleets: int
    replicas: int  # per fleet
    days: float


def run(options: Options) -> Result:
    """Fills, starts and asks. Raises `Missing` without Prometheus and promtool."""
    for tool in ("prometheus", "promtool"):
        if shutil.which(tool) is None:
            raise Missing(f"{tool} is not installed; on Debian: apt install prometheus")
    size = Size(2, 10, 1.5) if options.quick else Size(4, 50, 7.0)
    with tempfile.TemporaryDirectory(prefix="trimtab-queries-") as name:
        folder = Path(name)
        end = int(time.time()) // BLOCK * BLOCK
        start = end - int(size.days * 86400)
        samples = _fill(folder, size, start, end, options)
        prometheus = Prometheus(folder, _free_port(), None, {})
        prometheus.start()
        try:
            rows = _measure(prometheus, start, end, options)
        finally:
            prometheus.stop()
    slowest = max(float(row["seconds"] or 0) for row in rows)
    known = [row for row in rows if row["cpu_without_rules"] is not None]
    return Result(
        rows=rows,
        figures={
            "replicas": size.fleets * size.replicas,
            "days": size.days,
            "samples": samples,
            "panels": len(rows),
            "slowest_seconds": slowest,
            "slowest_first_seconds": max(float(row["first"] or 0) for row in rows),
            "panels_over_1s": sum(float(row["seconds"] or 0) > 1 for row in rows),
            "empty_panels": sum(row["series"] == 0 for row in rows),
            "slowest_cpu_seconds": max(float(row["cpu_seconds"] or 0) for row in rows),
            "panels_over_1_cpu_second": sum(float(row["cpu_seconds"] or 0) > 1 for row in rows),
            "slowest_with_rules_cpu_seconds": max((float(row["cpu_seconds"] or 0) for row in known), default=None),
            "slowest_without_rules_cpu_seconds": max((float(row["cpu_without_rules"] or 0) for row in known), default=None),
        },
        notes=[
            f"samples are {STEP} s apart",
            "first: blocks not in memory of Prometheus yet",
            "a heat map asks for every replica",
        ],
    )


def _measure(prometheus: Prometheus, start: int, end: int, options: Options) -> list[dict[str, Cell]]:
    recorded = {record.name: f"({record.expr})" for record in records()}
    rows: list[dict[str, Cell]] = []
    for uid, dashboard in dashboards().items():
        for panel in _panels(dashboard):
            step = max(STEP, (end - start) // int(panel.get("maxDataPoints") or POINTS))
            interval = f"{max(step + STEP, 4 * STEP)}s"
            asked = [(_filled(each["expr"], interval), bool(each.get("instant"))) for each in panel["targets"]]
            tries = [_ask(prometheus, asked, start, end, step) for _ in range(REPEATS)]
            plain = [(_unrecorded(expr, recorded), instant) for expr, instant in asked]
            other = _ask(prometheus, plain, start, end, step) if plain != asked else None
            rows.append(
                {
                    "dashboard": uid.removeprefix("trimtab-"),
                    "panel": str(panel["title"]),
                    "queries": len(asked),
                    "series": tries[0].series,
                    "first": round(tries[0].seconds, 3),
                    "seconds": round(statistics.median(each.seconds for each in tries), 3),
                    "cpu_seconds": round(statistics.median(each.cpu_seconds for each in tries), 3),
                    "cpu_without_rules": None if other is None else round(other.cpu_seconds, 3),
                }
            )
        options.say(f"{uid} measured")
    return rows


def _panels(dashboard: Any) -> Iterator[Any]:
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def _ask(prometheus: Prometheus, asked: Sequence[tuple[str, bool]], start: int, end: int, step: int) -> Asked:
    """A panel's queries, one after the other."""
    began, cpu, series = time.perf_counter(), prometheus.cpu_seconds(), 0
    for expr, instant in asked:
        if instant:
            series += len(prometheus.get("query", query=expr, time=end - STEP)["result"])
        else:
            series += len(prometheus.get("query_range", query=expr, start=start, end=end - STEP, step=step)["result"])
    return Asked(time.perf_counter() - began, prometheus.cpu_seconds() - cpu, series)


def _filled(expr: str, interval: str) -> str:
    return expr.replace("$fleet", ".+").replace("$__rate_interval", interval)


def _unrecorded(expr: str, recorded: dict[str, str]) -> str:
    """Each recorded name and its matcher replaced by what the rule computes; rules that use rules are followed."""
    for _ in range(3):
        for name, rule in recorded.items():
            expr = re.sub(rf"(?<![\w:]){re.escape(name)}(?![\w:])(?:{{[^}}]*}})?(?!\[)", rule.replace("\\", r"\\"), expr)
    return expr


def _fill(folder: Path, size: Size, start: int, end: int, options: Options) -> int:
    """Blocks in `folder/data`; how many samples they hold."""
    text, total = folder / "samples.om", 0
    series = list(_series(size))
    data = folder / "data"
    begin = start
    while begin < end:
        until = min(begin + BLOCK - begin % BLOCK, end)
        with text.open("w") as file:
            times = range(begin, until, STEP)
            for name, base, slope in series:
                file.write("".join(f"{name} {_value(base, slope, t, t - start):.6g} {t}\n" for t in times))
                total += len(times)
            file.write("# EOF\n")
        argv = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=18h", str(text), str(data)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Missing(f"promtool could not make blocks: {done.stderr.strip()[-300:]}")
        options.say(f"filled {(until - start) / 86400:.1f} of {size.days} days")
        begin = until
    text.unlink()
    return total


def _value(base: float, slope: float, at: int, since: int) -> float:
    """A counter grows evenly, a gauge wanders a little: the shape matters little to the cost of a query."""
    return base + slope * since if slope else base * (1 + at // STEP % 7 * 0.01)


Line = tuple[str, float, float]


def _series(size: Size) -> Iterator[Line]:
    """Every series that a query reads: name and labels, first value, growth per second (0: a gauge)."""
    for number in range(size.fleets):
        fleet = f"fleet-{number}"
        yield from _of_fleet(fleet)
        for replica in range(size.replicas):
            yield from _of_replica(fleet, f"{fleet}-v1-{replica}", replica)
    for part in ("collect", "detect", "autoscale", "metrics"):
        own = f'job="trimtab",part="{part}",instance="{part}:9100"'
        yield f"up{{{own}}}", 1, 0
        yield f"process_resident_memory_bytes{{{own}}}", 8e7, 0
        yield f"process_cpu_seconds_total{{{own}}}", 1, 0.03
        yield f'trimtab_build_info{{{own},service="{part}",version="0.1.0"}}', 1, 0
    yield from _of_trimtab()


def _of_replica(fleet: str, target: str, number: int) -> Iterator[Line]:
    own = f'job="trimtab-targets",fleet="{fleet}",role="triton",target="{target}",pool="stable",version="1"'
    yield f"up{{{own}}}", 1, 0
    for name, growth in (
        ("nv_inference_request_success", 20.0),
        ("nv_inference_compute_infer_duration_us", 20 * 4000.0),
        ("nv_inference_queue_duration_us", 20 * 900.0),
        ("trimtab_model_confidence_sum", 19.0),
        ("trimtab_model_confidence_count", 20.0),
    ):
        yield f"{name}{{{own}}}", 1, growth * (1 + number % 5 / 10)
    for reason in ("OTHER", "BACKEND", "CANCELED", "REJECTED"):
        yield f'nv_inference_request_failure{{{own},reason="{reason}"}}', 1, 0.001
    yield f"nv_inference_pending_request_count{{{own}}}", 2, 0
    yield f"trimtab_model_resident_memory_bytes{{{own}}}", 1.3e8, 0
    if number % 10 == 0:
        yield from _of_adapters(own)
    yield from _of_quality(own)
    place = f'Hostname="node-{number // 8}",gpu="{number % 8}"'
    card = f'fleet="{fleet}",role="gpu",{place},UUID="{target}",modelName="A100",pod="{target}"'
    for name, value in (
        ("GPU_UTIL", 80), ("FB_USED", 60000), ("FB_FREE", 20000), ("POWER_USAGE", 300), ("GPU_TEMP", 50), ("MEMORY_TEMP", 60),
        ("SM_CLOCK", 1400), ("XID_ERRORS", 0), ("UNCORRECTABLE_REMAPPED_ROWS", 0), ("CORRECTABLE_REMAPPED_ROWS", 1),
        ("ROW_REMAP_FAILURE", 0), ("PCIE_REPLAY_COUNTER", 3),
    ):  # fmt: skip
        yield f"DCGM_FI_DEV_{name}{{{card}}}", value, 0
    for name in ("requests", "requests_failed", "infer_seconds", "queue_seconds", "busy_ratio", "confidence"):
        yield f'target:{name}:rate1m{{fleet="{fleet}",target="{target}",pool="stable",version="1"}}', 0.5, 0
    for detector in DETECTORS:
        yield f'trimtab_score{{fleet="{fleet}",target="{target}",detector="{detector}"}}', 0.4, 0


def _of_adapters(own: str) -> Iterator[Line]:
    """One replica in ten serves an adapter set."""
    for result, growth in (("hit", 15.0), ("miss", 5.0), ("unknown", 0.01), ("overload", 0.01)):
        yield f'trimtab_adapters_requests_total{{{own},result="{result}"}}', 1, growth
    for why in ("miss", "prefetch"):
        for name, growth in (("moved_bytes", 7e6), ("loads", 5.0), ("load_failures", 0.01)):
            yield f'trimtab_adapters_{name}_total{{{own},why="{why}"}}', 1, growth
    for name in ("evictions", "refusals"):
        yield f"trimtab_adapters_{name}_total{{{own}}}", 1, 2.0
    for name, value in (("held", 50), ("held_bytes", 2e8), ("limit_bytes", 2.7e8)):
        yield f"trimtab_adapters_{name}{{{own}}}", value, 0
    for le in ("0.002", "0.005", "0.01", "0.02", "0.05", "0.1", "1.0", "+Inf"):
        yield f'trimtab_adapters_load_seconds_bucket{{{own},le="{le}"}}', 1, 5.0
    for adapter in (*(f"task{each}" for each in range(20)), "other"):
        yield f'trimtab_adapter_answers_total{{{own},adapter="{adapter}"}}', 1, 1.0
        yield f'trimtab_adapter_confidence_sum{{{own},adapter="{adapter}"}}', 1, 0.9
        yield f'trimtab_adapter_request_ratio{{{own},adapter="{adapter}"}}', 0.05, 0


def _of_quality(own: str) -> Iterator[Line]:
    for le in ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "0.95", "0.99", "+Inf"):
        yield f'trimtab_model_confidence_bucket{{{own},le="{le}"}}', 1, 20.0 if le == "+Inf" else 20 * float(le)
    for le in ("4", "8", "16", "32", "64", "128", "+Inf"):
        yield f'trimtab_model_tokens_bucket{{{own},le="{le}"}}', 1, 20.0 if le == "+Inf" else 20 * float(le) / 128
    for name, growth in (("tokens_sum", 260.0), ("tokens_count", 20.0), ("padded_tokens_total", 270.0), ("runs_total", 9.0)):
        yield f"trimtab_model_{name}{{{own}}}", 1, growth
    yield f"trimtab_model_truncated_total{{{own}}}", 1, 0.01
    for reason in ("empty", "too_long", "not_utf8", "no_words"):
        yield f'trimtab_model_refused_total{{{own},reason="{reason}"}}', 1, 0.01
    for name in (*(f"class{each}" for each in range(12)), "other"):
        yield f'trimtab_model_answers_total{{{own},class="{name}"}}', 1, 1.5
    for outcome, growth in (("right", 0.9), ("wrong", 0.1)):
        yield f'trimtab_model_feedback_total{{{own},outcome="{outcome}"}}', 1, growth


def _of_fleet(fleet: str) -> Iterator[Line]:
    own = f'fleet="{fleet}"'
    for name, value in (
        ("slo_latency_seconds", 0.25),
        ("slo_error_ratio", 0.01),
        ("capacity_per_replica", 30),
        ("wanted_version", 2),
    ):
        yield f"trimtab_{name}{{{own}}}", value, 0
    yield f'trimtab_replica_bounds{{{own},bound="max"}}', 60, 0
    yield f'trimtab_hands_off{{{own},why="paused"}}', 0, 0
    yield f"trimtab_model_trained_timestamp_seconds{{{own}}}", 1.7e9, 0
    yield f'trimtab_finding_firing{{{own},kind="replica_fault",severity="critical",subject="r",version="1"}}', 1, 0
    for kind in ("demand_shift", "replica_fault", "gpu_fault", "version_regression", "telemetry_gap", "saturation"):
        for severity in ("info", "warning", "critical"):
            yield f'trimtab_findings_open{{{own},kind="{kind}",severity="{severity}"}}', 1, 0
            yield f'trimtab_findings_total{{{own},kind="{kind}",severity="{severity}"}}', 1, 1e-4
        yield f'trimtab_findings_ended_total{{{own},kind="{kind}",answered="yes"}}', 1, 1e-4
    for action in ("scale", "shift_traffic", "promote", "rollback", "quarantine", "release", "hold"):
        for outcome in ("applied", "refused", "failed"):
            yield f'trimtab_fleet_decisions_total{{{own},action="{action}",outcome="{outcome}"}}', 1, 1e-4
            yield f'trimtab_fleet_decision_timestamp_seconds{{{own},action="{action}",outcome="{outcome}"}}', 1.7e9, 0
    for topic in ("scores", "findings", "decisions", "states"):
        yield f'trimtab_last_message_timestamp_seconds{{{own},topic="trimtab.{topic}"}}', 1.7e9, 0
    for detector in DETECTORS:
        yield f'fleet:score:max{{{own},detector="{detector}"}}', 0.9, 0
        yield f'trimtab_scores_alarming_total{{{own},detector="{detector}"}}', 1, 0.01
        yield f'trimtab_score_tail_ratio_sum{{{own},detector="{detector}"}}', 1, 25
        yield f'trimtab_score_tail_ratio_count{{{own},detector="{detector}"}}', 1, 50
        yield f'trimtab_detector_last_score_timestamp_seconds{{{own},detector="{detector}"}}', 1.7e9, 0
        for le in ("0.001", "0.01", "0.05", "0.1", "0.5", "1.0", "+Inf"):
            yield f'trimtab_score_tail_ratio_bucket{{{own},detector="{detector}",le="{le}"}}', 1, 50
    yield from _of_gateway(fleet, own)
    yield from _of_recorded_quality(own)


def _of_gateway(fleet: str, own: str) -> Iterator[Line]:
    gateway = f'{own},role="gateway",target="gateway"'
    yield f'envoy_http_downstream_rq_total{{{gateway},envoy_http_conn_manager_prefix="{fleet}"}}', 1, 1000
    for code in "12345":
        yield f'envoy_http_downstream_rq_xx{{{gateway},envoy_response_code_class="{code}"}}', 1, 1000 if code == "2" else 0.5
    yield f"fleet:requests_ended:rate5m{{{own}}}", 1000, 0
    yield f"fleet:requests_failed:rate5m{{{own}}}", 1, 0
    for name in (
        "requests:rate1m",
        "error_ratio:rate5m",
        "latency_p99_seconds:rate5m",
        "error_budget_left:3d",
        "demand_of_capacity:ratio",
    ):
        yield f"fleet:{name}{{{own}}}", 0.5, 0
    for pool, version in (("stable", "1"), ("canary", "2")):
        labels = f'{own},pool="{pool}",version="{version}"'
        for name, value in (("replicas_wanted", 50), ("replicas_in_traffic", 50), ("weight", 0.5)):
            yield f"trimtab_pool_{name}{{{labels}}}", value, 0
        for phase in ("starting", "ready", "draining", "quarantined", "failed"):
            yield f'trimtab_pool_replicas{{{labels},phase="{phase}"}}', 10, 0
        cluster = f'{gateway},envoy_cluster_name="{fleet}_v{version}"'
        yield f"envoy_cluster_upstream_rq_retry{{{cluster}}}", 1, 0.1
        yield f'envoy_cluster_upstream_rq_xx{{{cluster},envoy_response_code_class="2"}}', 1, 500
        for le in _BOUNDS:
            yield f'envoy_cluster_upstream_rq_time_bucket{{{cluster},le="{le}"}}', 1, 500
        for outcome in ("ok", "wrong"):
            traffic = f'{own},role="app",version="{version}",outcome="{outcome}"'
            yield f"trimtab_traffic_requests_total{{{traffic}}}", 1, 400
        for name in (
            "requests:rate1m",
            "error_ratio:rate1m",
            "latency_p50_seconds:rate1m",
            "latency_p99_seconds:rate1m",
            "wrong_ratio:rate1m",
        ):
            yield f'version:{name}{{{own},version="{version}"}}', 0.1, 0


def _of_recorded_quality(own: str) -> Iterator[Line]:
    """What is recorded of that, per version."""
    for number in range(13):
        yield f'fleet:model_answers:rate6h{{{own},class="class{number}"}}', 30, 0
    for version in "12":
        labels = f'{own},version="{version}"'
        for name in ("confidence_sum", "confidence_count", "tokens_sum", "tokens_count", "truncated", "runs", "padded_tokens"):
            yield f"version:model_{name}:rate1m{{{labels}}}", 400, 0
        for name, label, values in (
            ("confidence_bucket", "le", ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "0.95", "0.99", "+Inf")),
            ("tokens_bucket", "le", ("4", "8", "16", "32", "64", "128", "+Inf")),
            ("answers", "class", tuple(f"class{number}" for number in range(13))),
            ("refused", "reason", ("empty", "too_long", "not_utf8", "no_words")),
            ("feedback", "outcome", ("right", "wrong")),
        ):
            for value in values:
                yield f'version:model_{name}:rate1m{{{labels},{label}="{value}"}}', 30, 0
        for outcome in ("right", "wrong"):
            yield f'version:model_feedback:increase1h{{{labels},outcome="{outcome}"}}', 5000, 0


def _of_trimtab() -> Iterator[Line]:
    own = 'job="trimtab",instance="collect:9100",part="collect"'
    for role in ("triton", "gateway", "gpu", "app"):
        yield f'trimtab_collect_scrapes_total{{{own},role="{role}",result="ok"}}', 1, 50
        for le in ("0.002", "0.01", "0.05", "0.2", "1.0", "+Inf"):
            yield f'trimtab_collect_scrape_seconds_bucket{{{own},role="{role}",le="{le}"}}', 1, 50
    for name, growth in (("targets", 0), ("spool_snapshots", 0), ("lost_total", 1e-6)):
        yield f"trimtab_collect_{name}{{{own}}}", 1, growth
    yield "trimtab_score_alarm", 0.995, 0
    for name in ("job_running", "heartbeat_timestamp_seconds", "checkpoint_timestamp_seconds"):
        yield f'trimtab_detect_{name}{{instance="detect:9100"}}', 1, 0
    yield 'trimtab_consumer_lag_records{group="trimtab-detectors",topic="trimtab.telemetry"}', 100, 0
    yield "trimtab_operator_leads", 1, 0
    yield "trimtab_operator_fleets", 4, 0
    yield 'trimtab_rejected_records{topic="trimtab.telemetry"}', 1, 0
    yield 'trimtab_metrics_left_out_total{limit="target"}', 1, 1e-6
    for le in ("0.01", "0.1", "1.0", "+Inf"):
        yield f'trimtab_autoscaler_step_seconds_bucket{{instance="autoscale:9100",le="{le}"}}', 1, 2
        yield f'trimtab_decision_after_finding_seconds_bucket{{instance="autoscale:9100",le="{le}"}}', 1, 0.01


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

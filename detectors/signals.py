"""Raw series to canonical signals: the one table that knows the names on other people's pages.

`read(snapshot)` adds up what a page says (cumulative counters and gauges, nothing derived); `replica_values` and
`pool_values` turn two readings into the canonical signals of an interval. Unknown stays NaN.
"""

from __future__ import annotations

import functools
import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.messages import Snapshot

Vector = npt.NDArray[np.float64]

# The signals of a replica, in the order of the columns, with their units.
REPLICA = {
    "requests": "1/s",
    "failures": "1/s",
    "request_seconds": "s",
    "queue_seconds": "s",
    "infer_seconds": "s",
    "pending": "requests",
    "batch": "requests per execution",
    "memory_bytes": "bytes",
    "confidence": "ratio",
    "gpu_temperature": "degree C",
    "gpu_power": "W",
    "gpu_utilisation": "ratio",
    "gpu_memory": "MiB",
    "gpu_xid": "code",
}
# The signals of a pool (one version), as the gateway and the traffic generator see it. Counts are per interval.
POOL = {
    "requests": "1/s",
    "answered": "requests",
    "errors": "requests",
    "timeouts": "requests",
    "mean_seconds": "s",
    "p50_seconds": "s",
    "p99_seconds": "s",
    "right": "requests",
    "wrong": "requests",
}
FLEET = {"arrivals": "1/s"}

# Series of a role -> the name under which their values are added up; {label} is filled with the label's value.
_TABLE: dict[str, dict[str, str]] = {
    "triton": {
        "nv_inference_request_success": "success",
        "nv_inference_request_failure": "failure",
        "nv_inference_count": "inferences",
        "nv_inference_exec_count": "executions",
        "nv_inference_request_duration_us": "request_us",
        "nv_inference_queue_duration_us": "queue_us",
        "nv_inference_compute_infer_duration_us": "infer_us",
        "nv_inference_pending_request_count": "pending",
        "trimtab_model_resident_memory_bytes": "memory",
        "trimtab_model_confidence_sum": "confidence_sum",
        "trimtab_model_confidence_count": "confidence_count",
    },
    "gateway": {
        "envoy_cluster_upstream_rq_xx": "{envoy_cluster_name}|class{envoy_response_code_class}",
        "envoy_cluster_upstream_rq_timeout": "{envoy_cluster_name}|timeouts",
        "envoy_cluster_upstream_rq_time_bucket": "{envoy_cluster_name}|le{le}",
        "envoy_cluster_upstream_rq_time_sum": "{envoy_cluster_name}|ms_sum",
        "envoy_cluster_upstream_rq_time_count": "{envoy_cluster_name}|ms_count",
        "envoy_http_downstream_rq_total": "arrivals|{envoy_http_conn_manager_prefix}",
    },
    "app": {
        "trimtab_traffic_requests_total": "{version}|{outcome}",
        "trimtab_traffic_latency_seconds_bucket": "{version}|le{le}",
    },
    "gpu": {
        "DCGM_FI_DEV_GPU_TEMP": "{pod}|{gpu}|gpu_temperature",
        "DCGM_FI_DEV_POWER_USAGE": "{pod}|{gpu}|gpu_power",
        "DCGM_FI_DEV_GPU_UTIL": "{pod}|{gpu}|gpu_utilisation",
        "DCGM_FI_DEV_FB_USED": "{pod}|{gpu}|gpu_memory",
        "DCGM_FI_DEV_XID_ERRORS": "{pod}|{gpu}|gpu_xid",
    },
}
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
# The model beside the fleet's own that takes feedback: `<model>_feedback`.
_FEEDBACK = '_feedback"'
_HOLE = re.compile(r"\{(\w+)\}")
# DCGM writes these when it has no value (64 and 32 bit "blank", "not found", "not supported", "not permitted").
_BLANK_64, _BLANK_32 = 9223372036854775792.0, (2147483632.0, 2147483647.0)


class Reading(NamedTuple):
    """What one page said: canonical name -> raw value, and a digest of the whole page (0 when it was empty)."""

    time: float
    values: dict[str, float]
    digest: int


Pages = tuple[Reading, Reading | None]
"""The page of a target now, and the one before it (None: it is seen for the first time)."""


@functools.lru_cache(maxsize=65536)
def canonical(role: str, series: str) -> str | None:
    """The name under which a raw series counts, or None when nothing here looks at it."""
    name, _, rest = series.partition("{")
    if role == "triton" and _FEEDBACK in rest:
        return None  # not what users wait for
    template = _TABLE.get(role, {}).get(name)
    if template is None or "{" not in template:
        return template
    labels = dict(_LABEL.findall(rest))
    return _HOLE.sub(lambda hole: labels.get(hole[1], ""), template)


def is_blank(value: float | None) -> bool:
    """True for a missing value, NaN, infinity and DCGM's blanks."""
    return value is None or not math.isfinite(value) or value >= _BLANK_64 or _BLANK_32[0] <= value <= _BLANK_32[1]


def read(snapshot: Snapshot) -> Reading:
    """Add up the series of one page under their canonical names."""
    values: dict[str, float] = {}
    blanks = snapshot.role == "gpu"
    for series, value in snapshot.series.items():
        name = canonical(snapshot.role, series)
        if name is None or value is None or not math.isfinite(value) or (blanks and is_blank(value)):
            continue
        values[name] = values.get(name, 0.0) + value
    page = np.array([math.nan if v is None else v for v in snapshot.series.values()], dtype=np.float64)
    return Reading(snapshot.time, values, zlib.crc32(page.tobytes()) if snapshot.series else 0)


def increase(new: Mapping[str, float], old: Mapping[str, float], name: str) -> float:
    """How much a counter grew. NaN when unknown on either side or when it was reset (a restart)."""
    after, before = new.get(name, math.nan), old.get(name, math.nan)
    return after - before if after >= before else math.nan


def was_reset(new: Mapping[str, float], old: Mapping[str, float], names: tuple[str, ...]) -> bool:
    """True when any of these counters went back."""
    return any(new.get(name, math.nan) < old.get(name, math.nan) for name in names)


def _ratio(amount: float, count: float) -> float:
    return amount / count if count > 0 else math.nan


def replica_values(new: Reading, old: Reading | None, gpu: Mapping[str, float]) -> Vector:
    """The signals of a replica [len(REPLICA)] between two pages; `gpu` holds those of its GPU."""
    now, before = new.values, old.values if old else {}
    seconds = new.time - old.time if old else math.nan
    success, failure = increase(now, before, "success"), increase(now, before, "failure")
    inferences = increase(now, before, "inferences")
    total = np.nansum([success, failure]) if not (math.isnan(success) and math.isnan(failure)) else math.nan
    confidences = increase(now, before, "confidence_count")
    found = {
        "requests": _ratio(total, seconds),
        "failures": _ratio(failure, seconds),
        "request_seconds": _ratio(increase(now, before, "request_us") / 1e6, success),
        "queue_seconds": _ratio(increase(now, before, "queue_us") / 1e6, success),
        "infer_seconds": _ratio(increase(now, before, "infer_us") / 1e6, success),
        "pending": now.get("pending", math.nan),
        "batch": _ratio(inferences, increase(now, before, "executions")),
        "memory_bytes": now.get("memory", math.nan),
        "confidence": _ratio(increase(now, before, "confidence_sum"), confidences),
        **gpu,
    }
    return np.array([found.get(name, math.nan) for name in REPLICA])


def gpu_values(reading: Reading) -> dict[tuple[str, str], dict[str, float]]:
    """(pod, gpu) -> the GPU signals on a DCGM page."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for key, value in reading.values.items():
        pod, gpu, name = key.rsplit("|", 2)
        found.setdefault((pod, gpu), {})[name] = value / 100.0 if name == "gpu_utilisation" else value
    return found


def versions_on(fleet: str, gateways: Sequence[Pages], app: Pages | None) -> set[int]:
    """The versions that a gateway or the traffic generator speaks of."""
    prefix = f"{fleet}_v"
    heads = {key.split("|")[0].removeprefix(prefix) for new, _old in gateways for key in new.values if key.startswith(prefix)}
    heads |= {key.split("|")[0] for key in (app[0].values if app else ())}
    return {int(head) for head in heads if head.isdigit()}


def pool_values(cluster: str, version: int, gateways: Sequence[Pages], app: Pages | None) -> Vector:
    """The signals of a version's pool [len(POOL)] from the pages of the gateways and of the traffic generator.

    What several gateways counted is added up; each has an interval of its own. Latencies are the gateways'; where their
    histograms did not move although they answered (Envoy merges histograms only at a flush) they are the client's.
    """
    found: dict[str, float] = {}
    each = [_gateway_counts(cluster, new, old) for new, old in gateways if old]
    if each:
        found = {
            name: _sum(counts.get(name, math.nan) for counts in each) for name in ("answered", "errors", "timeouts", "requests")
        }
        found["mean_seconds"] = _ratio(_sum(c["ms_sum"] for c in each) / 1000.0, _sum(c["ms_count"] for c in each))
        bounds = _merged([_buckets(new.values, old.values, f"{cluster}|le") for new, old in gateways if old])
        found["p50_seconds"], found["p99_seconds"] = quantile(bounds, 0.5) / 1000.0, quantile(bounds, 0.99) / 1000.0
    if app and app[1]:
        now, before = app[0].values, app[1].values
        for name, outcome in (("right", "ok"), ("wrong", "wrong")):
            found[name] = _grown(now, before, f"{version}|{outcome}", f"{version}|")
        if math.isnan(found.get("p99_seconds", math.nan)):
            bounds = _buckets(now, before, f"{version}|le")
            found["p50_seconds"], found["p99_seconds"] = quantile(bounds, 0.5), quantile(bounds, 0.99)
    return np.array([found.get(name, math.nan) for name in POOL])


def _gateway_counts(cluster: str, new: Reading, old: Reading) -> dict[str, float]:
    """What one gateway counted for one version between two pages; `requests` per second."""
    now, before = new.values, old.values
    # A class that Envoy has not seen yet is not on its page: it counts from 0 as soon as the cluster is there.
    grown = {c: _grown(now, before, f"{cluster}|class{c}", f"{cluster}|") for c in "12345"}
    answered = _sum(grown.values())
    return {
        "answered": answered,
        "errors": 0.0 if math.isnan(grown["5"]) and not math.isnan(answered) else grown["5"],
        "requests": _ratio(answered, new.time - old.time),
        "timeouts": increase(now, before, f"{cluster}|timeouts"),
        "ms_count": increase(now, before, f"{cluster}|ms_count"),
        "ms_sum": increase(now, before, f"{cluster}|ms_sum"),
    }


def _sum(values: Iterable[float]) -> float:
    """The sum of what is known; NaN when nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return float(sum(known)) if known else math.nan


def _merged(histograms: list[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """One cumulative histogram from several with the same bounds."""
    total: dict[float, float] = {}
    for histogram in histograms:
        for bound, count in histogram:
            total[bound] = total.get(bound, 0.0) + count
    return sorted(total.items())


def _grown(now: Mapping[str, float], before: Mapping[str, float], name: str, family: str) -> float:
    if name in now and name not in before and any(key.startswith(family) for key in before):
        return now[name]
    return increase(now, before, name)


def _buckets(now: Mapping[str, float], before: Mapping[str, float], prefix: str) -> list[tuple[float, float]]:
    pairs = [
        (float(key[len(prefix) :].replace("+Inf", "inf")), _grown(now, before, key, prefix))
        for key in now
        if key.startswith(prefix)
    ]
    return sorted(pair for pair in pairs if not math.isnan(pair[1]))


def quantile(buckets: list[tuple[float, float]], q: float) -> float:
    """The q-quantile from cumulative (upper bound, count) buckets by linear interpolation, as PromQL does it.

    Unit of the bounds; NaN without samples; the last finite bound when the quantile lies above it.
    """
    if not buckets or buckets[-1][1] <= 0:
        return math.nan
    rank, low, below = q * buckets[-1][1], 0.0, 0.0
    for high, count in buckets:
        if count >= rank:
            if math.isinf(high):
                return low
            return low + (high - low) * (rank - below) / (count - below) if count > below else high
        low, below = high, count
    return low


def fleet_arrivals(fleet: str, gateways: Sequence[Pages]) -> float:
    """Requests per second that arrived for this fleet at all gateways together; NaN when that of one of them is unknown."""
    rates = [
        _ratio(increase(new.values, old.values, f"arrivals|{fleet}"), new.time - old.time) if old else math.nan
        for new, old in gateways
    ]
    return float(sum(rates)) if rates else math.nan

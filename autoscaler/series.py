"""Reads the raw series of the gateway's and the traffic's snapshots: names and labels as docs/architecture.md says."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping

import msgspec

from trimtab.messages import Snapshot

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class VersionCounters(msgspec.Struct, frozen=True):
    """Counters of one version since its gateway or generator started; None where the page did not say.

    `latency` is a cumulative histogram as the gateway writes it: upper bound in milliseconds, as text -> requests under it.
    """

    requests: float | None = None
    failed: float | None = None
    latency: dict[str, float] = {}
    answered: float | None = None
    wrong: float | None = None


def arrivals(gateway: Snapshot) -> float | None:
    """Requests that clients have sent to the fleet: the gateway's downstream counter. Retries it makes itself are not in it."""
    return _sum(gateway, "envoy_http_downstream_rq_total", {"envoy_http_conn_manager_prefix": gateway.fleet})


def gateway_counters(gateway: Snapshot, version: int) -> VersionCounters:
    """What the gateway counted for one version. An attempt that was retried is an answer of that version as well."""
    cluster = {"envoy_cluster_name": f"{gateway.fleet}_v{version}"}
    total, failed = None, None
    for name in ("envoy_cluster_upstream_rq_xx", "envoy_cluster_retry_upstream_rq_xx"):
        for labels, value in _find(gateway, name, cluster):
            total = (total or 0.0) + value
            failed = (failed or 0.0) + (value if labels.get("envoy_response_code_class") == "5" else 0.0)
    buckets = _find(gateway, "envoy_cluster_upstream_rq_time_bucket", cluster)
    latency = {labels["le"]: value for labels, value in buckets if _is_bound(labels.get("le", ""))}
    return VersionCounters(requests=total, failed=failed, latency=latency)


def traffic_counters(app: Snapshot, version: int) -> VersionCounters:
    """Answers of one version that the traffic could judge; failed requests are left to the gateway's counters."""
    answered, wrong = None, None
    for labels, value in _find(app, "trimtab_traffic_requests_total", {"version": str(version)}):
        outcome = labels.get("outcome")
        if outcome in ("ok", "wrong"):
            answered = (answered or 0.0) + value
            wrong = (wrong or 0.0) + (value if outcome == "wrong" else 0.0)
    return VersionCounters(answered=answered, wrong=wrong)


def _sum(snapshot: Snapshot, name: str, wanted: Mapping[str, str]) -> float | None:
    values = [value for _labels, value in _find(snapshot, name, wanted)]
    return sum(values) if values else None


def _find(snapshot: Snapshot, name: str, wanted: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
    for key, value in snapshot.series.items():
        if value is None or not key.startswith(name) or not math.isfinite(value) or value < 0:
            continue
        base, labels = _parse(key)
        if base == name and all(labels.get(label) == text for label, text in wanted.items()):
            yield labels, value


@functools.lru_cache(maxsize=20_000)
def _parse(key: str) -> tuple[str, dict[str, str]]:
    base, _, rest = key.partition("{")
    return base, dict(_LABEL.findall(rest))


def _is_bound(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False

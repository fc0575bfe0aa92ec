"""Rules about pools and the fleet: a worse version, wrong answers, demand, saturation, what all depend on."""

from __future__ import annotations

import math

import numpy as np

from detectors.context import Context
from detectors.lifecycle import Condition
from detectors.members.canary import Comparison
from detectors.members.change_point import ChangePointMember
from trimtab.messages import Evidence, FindingKind

QUEUE_SECONDS, QUEUE_RATIO = 0.05, 2.0
FULL = 0.8  # share of the stated capacity from which a queue is explained by load
POOL_ERRORS, POOL_ERROR_SHARE = 3.0, 0.2
SERIES = {
    "errors": "envoy_cluster_upstream_rq_xx",
    "wrong": "trimtab_traffic_requests_total",
    "slow": "nv_inference_compute_infer_duration_us",
    "leak": "trimtab_model_resident_memory_bytes",
}


def worse_versions(c: Context, sick: set[str]) -> list[Condition]:
    """Versions that are worse than their reference; `sick` are replicas that explain it by themselves."""
    found = []
    for version in sorted({x.version for x in c.comparisons}):
        mine = [x for x in c.comparisons if x.version == version]
        replicas = [h for h in c.seen.replicas if h.version == version and h.ever_up]
        ill = [h for h in replicas if h.target in sick or h.fails]
        if ill and (len(replicas) >= 2 or c.role(version) != "canary"):
            # One sick replica of several makes its whole pool look bad: it is the replica.
            mine = [x for x in mine if x.what in ("wrong", "leak")]
        if not mine:
            continue
        only_wrong = all(x.what == "wrong" for x in mine)
        evidence = [
            Evidence(
                detector="canary",
                series=SERIES[x.what],
                observed=x.observed,
                expected=x.expected,
                score=1 - max(x.p, 1e-6),
                window=x.window,
            )
            for x in mine
        ]
        evidence += [e for h in replicas for e in c.learned(h.target)][:6]
        words = f"version {version} is worse than version {mine[0].reference} at the same time: " + "; ".join(map(_words, mine))
        if mine[0].reference == version:
            words = f"version {version} gives other answers than before: " + "; ".join(map(_words, mine))
        kind: FindingKind = "quality_shift" if only_wrong else "version_regression"
        p = min(x.p for x in mine)
        found.append(
            Condition(
                kind,
                f"v{version}",
                "critical",
                1 - max(p, 1e-6),
                words,
                evidence,
                None,
                c.role(version),
                version,
                need=1 if len(mine) > 1 else 2,
            )
        )
    return found


def _words(x: Comparison) -> str:
    if x.what == "slow":
        return f"{x.observed * 1000:.0f} ms per inference against {x.expected * 1000:.0f} ms"
    if x.what == "leak":
        return f"its memory grew steadily by {x.observed / 1e6:.0f} MB in {x.window:.0f} s against {x.expected / 1e6:.0f} MB"
    share = "failed" if x.what == "errors" else "wrong"
    return f"{x.observed:.0%} of its answers are {share} against {x.expected:.0%}"


def demand(c: Context, change: ChangePointMember) -> list[Condition]:
    """A lasting change of arrivals."""
    if change.on == 0 or math.isnan(change.level):
        return []
    more = change.on > 0
    words = (
        f"arrivals {'rose' if more else 'fell'} from {change.baseline:.1f} to {change.level:.1f} requests/s: demand, not a fault"
    )
    score = c.score(change.name, c.seen.fleet)
    evidence = [
        Evidence(
            detector=change.name,
            series="envoy_http_downstream_rq_total",
            observed=change.level,
            expected=change.baseline,
            score=None if math.isnan(score) else score,
        )
    ]
    # A further rise is news of its own, though the first one is not over.
    subject = ("arrivals-up" if more else "arrivals-down") + (f"-{change.step}" if change.step else "")
    return [Condition("demand_shift", subject, "info", 0.99, words, evidence)]


def saturated(c: Context, change: ChangePointMember, sick_versions: set[int | None]) -> list[Condition]:
    """Pools whose queues grow because of demand."""
    queue, infer, requests = c.seen.column("queue_seconds"), c.seen.column("infer_seconds"), c.seen.column("requests")
    capacity = c.spec.capacity_per_replica if c.spec else math.nan
    found = []
    for version in c.seen.versions:
        own = [i for i, h in enumerate(c.seen.replicas) if h.version == version and requests[i] > 0 and queue[i] >= 0]
        if not own or version in sick_versions:
            continue
        full = [i for i in own if queue[i] >= max(QUEUE_SECONDS, QUEUE_RATIO * np.nan_to_num(infer[i]))]
        load = float(requests[own].mean())
        demanded = change.on > 0 or c.seen.arrivals >= 1.2 * change.baseline or load >= FULL * capacity
        if 2 * len(full) <= len(own) or not demanded:
            continue
        worst = max(full, key=lambda i: float(queue[i]))
        pending = float(np.nansum(c.seen.column("pending")[own]))
        words = (
            f"version {version} is saturated: requests wait {queue[worst] * 1000:.0f} ms and {pending:.0f} are pending"
            f" at {load:.1f} requests/s per replica"
        )
        series = "nv_inference_queue_duration_us"
        evidence = [
            Evidence(
                detector="saturation",
                series=series,
                observed=float(queue[worst]),
                expected=QUEUE_SECONDS,
                threshold=QUEUE_SECONDS,
            )
        ]
        found.append(
            Condition("saturation", f"v{version}", "warning", 0.9, words, evidence, None, c.role(version), version, need=3)
        )
    return found


def dependency(c: Context, explained: bool) -> list[Condition]:
    """All pools fail while the replicas answer their scrapes: what they share, or the way to them, is broken."""
    if explained:
        return []
    shares = {}
    for version in c.seen.versions:
        answered, errors = c.seen.pool(version, "answered"), c.seen.pool(version, "errors")
        if answered >= POOL_ERRORS:
            shares[version] = errors / answered if errors >= POOL_ERRORS else 0.0
    up = [h for h in c.seen.replicas if h.ever_up]
    if not shares or not up or any(h.fails for h in up) or min(shares.values()) < POOL_ERROR_SHARE:
        return []
    worst = max(shares.values())
    each = ", ".join(f"version {v}: {s:.0%}" for v, s in shares.items())
    words = f"every version fails ({each}) while {len(up)} replicas answer"
    evidence = [
        Evidence(
            detector="dependency", series="envoy_cluster_upstream_rq_xx", observed=worst, expected=0.0, threshold=POOL_ERROR_SHARE
        )
    ]
    return [Condition("dependency_fault", "pools", "critical", 0.9, words, evidence, need=3)]

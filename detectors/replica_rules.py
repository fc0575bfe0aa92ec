"""Rules about single replicas: does not answer, hangs, slow, fails requests, its GPU is sick."""

from __future__ import annotations

import math

import numpy as np

from detectors.context import Context
from detectors.features import NAMES
from detectors.lifecycle import Condition
from detectors.members.invariants import Violation
from detectors.observe import Health
from trimtab.messages import Evidence

WITNESS = 0.9  # share of arrivals answered well: the gateway says that nothing is wrong with the replicas
MANY = 0.6  # share of replicas that are sick together: then it is not one replica's fault
SLOW_RATIO, SURE_RATIO = 1.5, 3.0
MIN_FAILURES = 2
ALONE_TICKS = 4  # without a peer to compare with, a slow moment of the machine must have time to pass


def silent_replicas(c: Context) -> list[Condition]:
    """Replicas that are down, hang or are stuck; all at once is a dependency, and one that serves well is only not seen."""
    health = {h.target: h for h in c.seen.replicas}
    dead = [v for v in c.violations if v.what in ("down", "hang", "stuck") and v.target in health]
    if not dead:
        return []
    known = [h for h in c.seen.replicas if h.ever_up]
    if served_share(c) >= WITNESS and len(dead) == len(known) and all(v.what != "stuck" for v in dead):
        return [_unseen(c, v, health[v.target]) for v in dead]
    if len(dead) >= 2 and len(dead) >= MANY * len(known):
        # A pool that dies as a whole while others live is its version's fault: see version_rules.
        words = f"{len(dead)} of {len(known)} replicas stopped answering together: what they share has failed, not one of them"
        evidence = [e for v in dead for e in violation_evidence(c, v)][:8]
        return [Condition("dependency_fault", "replicas", "critical", 0.9, words, evidence)]
    found = []
    for v in dead:
        h = health[v.target]
        if c.is_canary(h) and c.pool_size(h.version) == sum(health[o.target].version == h.version for o in dead):
            words = f"version {h.version} crashes: {v.words}, and the stable version goes on"
            found.append(_version(c, h, words, violation_evidence(c, v), max(h.fails - 1, 0)))
            continue
        ago = max(h.fails - 1, 0) if v.what != "stuck" else 2
        found.append(c.replica("replica_fault", h, v.severity, 0.99, v.words, violation_evidence(c, v), ago=ago))
    return found


def _version(c: Context, h: Health, words: str, evidence: list[Evidence], ago: int) -> Condition:
    subject = f"v{h.version}"
    return Condition(
        "version_regression", subject, "critical", 0.95, words, evidence, None, c.role(h.version), h.version, ago=ago
    )


def _unseen(c: Context, v: Violation, h: Health) -> Condition:
    words = f"{v.words}, but the gateway gets {served_share(c):.0%} of the arrivals answered well: only its telemetry is missing"
    return Condition(
        "telemetry_gap", v.target, "warning", 0.8, words, violation_evidence(c, v), v.target, c.role(h.version), h.version
    )


def served_share(c: Context) -> float:
    """Answers without error over arrivals, all pools together, at the gateway; 0 when unknown."""
    good = [c.seen.pool(v, "answered") - c.seen.pool(v, "errors") for v in c.seen.versions]
    known = [g for g in good if not math.isnan(g)]
    return sum(known) / (c.seen.arrivals * c.interval) if known and c.seen.arrivals > 0 else 0.0


def sick_gpus(c: Context) -> list[Condition]:
    """XID errors and GPUs that are gone; one finding per replica, the worst first."""
    found: dict[str, Condition] = {}
    versions = {h.target: h for h in c.seen.replicas}
    for v in sorted(
        (v for v in c.violations if v.what in ("xid", "gpu_lost") and v.hard), key=lambda v: v.severity != "critical"
    ):
        if v.target in found:
            found[v.target].evidence.extend(violation_evidence(c, v)[:1])
            continue
        h = versions.get(v.target)
        evidence = violation_evidence(c, v)
        version = h.version if h else None
        found[v.target] = Condition(
            "gpu_fault", v.target, v.severity, 0.99, v.words, evidence, v.target, c.role(version), version
        )
    return list(found.values())


def failing_replicas(c: Context) -> list[Condition]:
    """Replicas that answer a good part of their requests with errors."""
    column, total = c.seen.column("failures"), c.seen.column("requests")
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(total > 0, column / total, np.nan)
    bad = [i for i in range(len(share)) if share[i] >= c.settings.error_share and column[i] * c.interval >= MIN_FAILURES]
    busy = [i for i in range(len(share)) if total[i] > 0]
    if len(bad) >= 2 and len(bad) >= MANY * len(busy):
        return []  # pool or dependency: see version_rules
    found = []
    for i in bad:
        h = c.seen.replicas[i]
        others = [share[j] for j in busy if j != i]
        expected = float(np.median(others)) if others else 0.0
        words = f"{h.target} fails {share[i]:.0%} of its requests" + (f", its peers {expected:.0%}" if others else "")
        evidence = [
            Evidence(detector="peers", series="nv_inference_request_failure", observed=float(share[i]), expected=expected)
        ]
        found.append(c.replica("replica_fault", h, "critical", 0.95, words, evidence + c.learned(h.target), need=2))
    return found


def slow_replicas(c: Context) -> list[Condition]:
    """Replicas whose inference takes much longer than their peers', or than at this load before when they have no peer.

    Where the machine is starved, peers must differ more, and the past says nothing: the replica would be slow anywhere on it.
    """
    infer, requests = c.seen.column("infer_seconds"), c.seen.column("requests")
    busy = [i for i in range(len(infer)) if requests[i] > 0 and infer[i] > 0 and not c.seen.replicas[i].fails]
    against_past = {i: _slow_for_itself(c, i, float(infer[i])) for i in busy}
    slow_alone = {i for i, expected in against_past.items() if expected}
    if len(slow_alone) >= 2 and len(slow_alone) >= MANY * len(busy):
        slow_alone = set()  # the machine, the version or the load: peers tell whether one stands out
    found = []
    for i in busy:
        h = c.seen.replicas[i]
        peers = [float(infer[j]) for j in busy if j != i and c.seen.replicas[j].version == h.version]
        score, expected, detector = math.nan, math.nan, ""
        starved = c.starved(h.target)
        if peers and _more(c, float(infer[i]), float(np.median(peers))):
            if starved and infer[i] < SURE_RATIO * float(np.median(peers)):
                continue
            score, expected, detector = c.score("peers", h.target), float(np.median(peers)), "peers"
        elif not peers and not starved and i in slow_alone and not c.is_canary(h):
            expected = against_past[i] or math.nan
            score, detector = max(
                (c.score(d, h.target), d) for d in ("history", "ensemble") if not math.isnan(c.score(d, h.target))
            )
        if not score >= c.settings.alarm:
            continue
        than = "its peers" if detector == "peers" else "it did at this load before"
        words = f"{h.target} is slow: {infer[i] * 1000:.0f} ms per inference, {than} {expected * 1000:.0f} ms"
        series = "nv_inference_compute_infer_duration_us"
        evidence = [
            Evidence(
                detector=detector,
                series=series,
                observed=float(infer[i]),
                expected=expected,
                score=score,
                threshold=c.settings.alarm,
            )
        ]
        found.append(
            c.replica(
                "replica_fault", h, "warning", score, words, evidence + c.learned(h.target), need=2 if peers else ALONE_TICKS
            )
        )
    return found


def _more(c: Context, observed: float, expected: float) -> bool:
    return observed - expected >= c.settings.slow_seconds and observed >= SLOW_RATIO * expected


def _slow_for_itself(c: Context, i: int, observed: float) -> float | None:
    """The expected seconds, when this replica is far above them and a learned or historical score agrees."""
    target = c.seen.replicas[i].target
    expected = c.expected_seconds(target, i)
    if math.isnan(expected) or not _more(c, observed, expected):
        return None
    if c.surging and observed < SURE_RATIO * expected:
        return None  # demand explains it
    history, ensemble = c.score("history", target), c.score("ensemble", target)
    leads = {name for name, _ in c.top("isolation_forest", target)} | {name for name, _ in c.top("cnn_lstm", target)}
    learned = ensemble >= c.settings.alarm and bool(leads & {"infer_seconds", "request_seconds"} & set(NAMES))
    return expected if history >= c.settings.alarm or learned else None


def violation_evidence(c: Context, v: Violation) -> list[Evidence]:
    """The broken invariant, then what the learned detectors last said of this target."""
    own = Evidence(detector="invariants", series=v.series, observed=v.observed, expected=v.expected, score=0.999999)
    return [own, *c.learned(v.target)]

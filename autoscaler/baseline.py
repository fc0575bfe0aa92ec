"""The recent behaviour of the version that serves: what a new version will be compared with, known before it starts."""

from __future__ import annotations

import math

import msgspec

from autoscaler.sequential import Rate
from autoscaler.series import VersionCounters, gateway_counters, traffic_counters
from autoscaler.settings import AutoscaleSettings
from trimtab.messages import Snapshot

_FADE_SECONDS = 60.0
_ENOUGH_REQUESTS = 20.0


class Baseline(msgspec.Struct, frozen=True):
    """Outcomes of `version`, older ones fading with a time constant of a minute."""

    version: int | None = None
    error: Rate = Rate()
    wrong: Rate = Rate()
    latency: dict[str, float] = {}
    """Upper bound in milliseconds, as text -> requests at or under it."""
    gateway: VersionCounters | None = None
    traffic: VersionCounters | None = None
    gateway_time: float | None = None
    traffic_time: float | None = None

    def slow_rate(self, bound: str | None) -> Rate:
        """Share of requests above `bound`."""
        if bound is None or "+Inf" not in self.latency:
            return Rate()
        total = self.latency["+Inf"]
        return Rate(max(0.0, total - self.latency.get(bound, total)), total)


def follow(baseline: Baseline, snapshot: Snapshot, version: int) -> Baseline:
    """After one more snapshot; another version starts a new baseline."""
    if baseline.version != version:
        baseline = Baseline(version=version)
    if not snapshot.up:
        return baseline
    if snapshot.role == "gateway":
        return _follow_gateway(baseline, gateway_counters(snapshot, version), snapshot.time)
    if snapshot.role == "app":
        return _follow_traffic(baseline, traffic_counters(snapshot, version), snapshot.time)
    return baseline


def threshold(baseline: Baseline, slo_seconds: float, settings: AutoscaleSettings) -> str | None:
    """The bound in milliseconds (as text) above which a request is slow; None when too little is known.

    The smallest bound of the histogram that `slow_quantile` of the recent requests stay under, not below `slow_floor_seconds`
    and never above the SLO: with a stable version that is itself slow, the largest bound within the SLO.
    """
    total = baseline.latency.get("+Inf", 0.0)
    if total < _ENOUGH_REQUESTS:
        return None
    bounds = sorted((bound for bound in baseline.latency if math.isfinite(float(bound))), key=float)
    within = [bound for bound in bounds if float(bound) <= slo_seconds * 1000] or bounds[:1]
    for bound in within:
        if float(bound) >= settings.slow_floor_seconds * 1000 and baseline.latency[bound] >= settings.slow_quantile * total:
            return bound
    return within[-1] if within else None


def _follow_gateway(baseline: Baseline, counters: VersionCounters, time: float) -> Baseline:
    before, since = baseline.gateway, baseline.gateway_time
    if since is not None and time <= since:
        return baseline
    error, latency = baseline.error, baseline.latency
    if before is not None and since is not None:
        keep = math.exp(-(time - since) / _FADE_SECONDS)
        error = _follow_rate(error, keep, before.failed, counters.failed, before.requests, counters.requests)
        growth = {bound: value - before.latency.get(bound, 0.0) for bound, value in counters.latency.items()}
        if all(value >= 0 for value in growth.values()):
            latency = {bound: latency.get(bound, 0.0) * keep + value for bound, value in growth.items()}
    return msgspec.structs.replace(baseline, error=error, latency=latency, gateway=counters, gateway_time=time)


def _follow_traffic(baseline: Baseline, counters: VersionCounters, time: float) -> Baseline:
    before, since = baseline.traffic, baseline.traffic_time
    if since is not None and time <= since:
        return baseline
    wrong = baseline.wrong
    if before is not None and since is not None:
        keep = math.exp(-(time - since) / _FADE_SECONDS)
        wrong = _follow_rate(wrong, keep, before.wrong, counters.wrong, before.answered, counters.answered)
    return msgspec.structs.replace(baseline, wrong=wrong, traffic=counters, traffic_time=time)


def _follow_rate(
    rate: Rate, keep: float, bad_before: float | None, bad: float | None, before: float | None, total: float | None
) -> Rate:
    if bad is None or total is None or bad < (bad_before or 0.0) or total < (before or 0.0):
        return rate
    return Rate(rate.bad * keep + bad - (bad_before or 0.0), rate.total * keep + total - (before or 0.0))

"""Judges a new version against the one that serves beside it, from the snapshots of the gateway and of the traffic.

Three streams of yes/no outcomes per version: *error* (failed requests at the gateway), *slow* (requests above a histogram bound
that is fixed when the comparison starts, from the control's own recent latencies, never above the SLO) and *wrong* (answers that
the traffic knows to be wrong, where it can tell). Only ticks in which both versions answered count, so that what hits both, such
as a surge or a busy machine, speaks against neither.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from autoscaler.baseline import Baseline, threshold
from autoscaler.sequential import Block, BoundTest, HarmTest, combined_log
from autoscaler.series import VersionCounters, gateway_counters, traffic_counters
from autoscaler.settings import AutoscaleSettings
from trimtab.messages import Snapshot

StreamName = Literal["error", "slow", "wrong"]
STREAMS: tuple[StreamName, ...] = ("error", "slow", "wrong")
_WORDS: dict[str, str] = {"error": "failed requests", "slow": "slow requests", "wrong": "wrong answers"}
_BASE_LIMIT = 100.0


class Stream(msgspec.Struct, frozen=True):
    """One comparison: its two tests and what they have seen."""

    harm: HarmTest
    bound: BoundTest
    control_bad: int = 0
    control_total: int = 0
    canary_bad: int = 0
    canary_total: int = 0


class CanaryMemory(msgspec.Struct, frozen=True):
    """A comparison under way, between the version `control` and the version `canary`."""

    control: int
    canary: int
    started: float
    slow_above: str | None
    """The fixed bound in milliseconds, as the gateway writes it; None until the control's latencies are known."""
    labelled: bool
    """Whether the traffic tells right from wrong answers."""
    streams: dict[str, Stream]
    evidence: float = 0.0
    """Largest log e-value of harm so far, over the three streams together."""
    counters: dict[str, VersionCounters] = {}
    gateway_time: float | None = None
    traffic_time: float | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What the comparison says now, in words and in numbers."""

    kind: Literal["harm", "fine", "hold"]
    reason: str
    numbers: dict[str, float]


def start(
    control: int, canary: int, baseline: Baseline, slo_seconds: float, settings: AutoscaleSettings, now: float
) -> CanaryMemory:
    """A new comparison. `baseline`: the control's recent behaviour, which fixes the bound for slow requests."""
    bound = threshold(baseline, slo_seconds, settings)
    margins = {"error": settings.error_harm_margin, "slow": settings.slow_harm_margin, "wrong": settings.wrong_harm_margin}
    bases = {"error": baseline.error, "slow": baseline.slow_rate(bound), "wrong": baseline.wrong}
    streams: dict[str, Stream] = {}
    for name in STREAMS:
        base = bases[name].scaled(_BASE_LIMIT)
        streams[name] = Stream(HarmTest(margins[name], base), BoundTest(base))
    return CanaryMemory(control, canary, now, bound, baseline.wrong.total > 0, streams)


def fix_bound(memory: CanaryMemory, baseline: Baseline, slo_seconds: float, settings: AutoscaleSettings) -> CanaryMemory:
    """Fixes the bound for slow requests as soon as the control's latencies are known, if they were not at the start."""
    if memory.slow_above is not None or baseline.version != memory.control:
        return memory
    bound = threshold(baseline, slo_seconds, settings)
    base = baseline.slow_rate(bound).scaled(_BASE_LIMIT)
    slow = Stream(HarmTest(settings.slow_harm_margin, base), BoundTest(base))
    return msgspec.structs.replace(memory, slow_above=bound, streams={**memory.streams, "slow": slow})


def observe(memory: CanaryMemory, snapshot: Snapshot, settings: AutoscaleSettings) -> CanaryMemory:
    """After one more snapshot of the gateway or of the traffic; others, failed ones and repetitions change nothing."""
    seen = memory.gateway_time if snapshot.role == "gateway" else memory.traffic_time
    if snapshot.role not in ("gateway", "app") or not snapshot.up or (seen is not None and snapshot.time <= seen):
        return memory
    read = gateway_counters if snapshot.role == "gateway" else traffic_counters
    now = {version: read(snapshot, version) for version in (memory.control, memory.canary)}
    before = {version: memory.counters.get(f"{snapshot.role}:{version}") for version in now}
    streams = dict(memory.streams)
    control, canary = before[memory.control], before[memory.canary]
    if control is not None and canary is not None:
        names: tuple[StreamName, ...] = ("error", "slow") if snapshot.role == "gateway" else ("wrong",)
        for name in names:
            a = outcomes(name, control, now[memory.control], memory.slow_above)
            b = outcomes(name, canary, now[memory.canary], memory.slow_above)
            if a and b and a[1] > 0 and b[1] > 0:
                streams[name] = _compare(streams[name], Block(*a, *b), settings.slow_cap_per_tick if name == "slow" else None)
    counters = memory.counters | {f"{snapshot.role}:{version}": seen_now for version, seen_now in now.items()}
    evidence = max(memory.evidence, combined_log([stream.harm.wealth.log_value for stream in streams.values()]))
    times = {"gateway_time": snapshot.time} if snapshot.role == "gateway" else {"traffic_time": snapshot.time}
    labelled = memory.labelled or any(counter.answered for counter in now.values())
    return msgspec.structs.replace(memory, streams=streams, counters=counters, evidence=evidence, labelled=labelled, **times)


def verdict(memory: CanaryMemory, now: float, settings: AutoscaleSettings) -> Verdict:
    """Harm, fine (not worse by the promotion margins, on every stream), or hold with the reason."""
    numbers = _numbers(memory, settings)
    if memory.evidence >= -math.log(settings.harm_alpha):
        worst = max(STREAMS, key=lambda name: memory.streams[name].harm.best)
        return Verdict("harm", _harm_words(memory, worst, settings), numbers)
    if memory.gateway_time is None or now - memory.gateway_time > settings.stale_seconds:
        return Verdict("hold", "telemetry missing: nothing is known of the gateway", numbers)
    if memory.slow_above is None:
        return Verdict("hold", "telemetry missing: the latencies of the stable version are not known yet", numbers)
    if memory.labelled and (memory.traffic_time is None or now - memory.traffic_time > settings.stale_seconds):
        return Verdict("hold", "telemetry missing: nothing is known of right and wrong answers", numbers)
    fewest = min(memory.streams["error"].control_total, memory.streams["error"].canary_total)
    if fewest < settings.min_requests:
        return Verdict("hold", f"too few samples: {fewest} of {settings.min_requests} requests side by side", numbers)
    for name, margin in _promote_margins(memory, settings).items():
        upper = memory.streams[name].bound.upper(settings.promote_alpha)
        if upper > margin:
            return Verdict(
                "hold", f"too few samples: {_WORDS[name]} may be up by {upper:.2f}, promotion needs {margin:.2f}", numbers
            )
    bounds = ", ".join(
        f"{_WORDS[name]} at most +{memory.streams[name].bound.upper(settings.promote_alpha):.2f}"
        for name in _promote_margins(memory, settings)
    )
    return Verdict("fine", f"not worse than version {memory.control} after {fewest} requests side by side: {bounds}", numbers)


def outcomes(name: StreamName, before: VersionCounters, after: VersionCounters, slow_above: str | None) -> tuple[int, int] | None:
    """(bad, total) outcomes between two readings of one version; None when unknown or when a counter was reset."""
    if name == "error":
        bad, total = _delta(before.failed, after.failed), _delta(before.requests, after.requests)
    elif name == "wrong":
        bad, total = _delta(before.wrong, after.wrong), _delta(before.answered, after.answered)
    else:
        if slow_above is None:
            return None
        total = _delta(before.latency.get("+Inf"), after.latency.get("+Inf"))
        fast = _delta(before.latency.get(slow_above), after.latency.get(slow_above))
        bad = None if total is None or fast is None else total - fast
    if bad is None or total is None or not 0 <= bad <= total:
        return None
    return round(bad), round(total)


def _delta(before: float | None, after: float | None) -> float | None:
    # A version that had no counter yet starts at zero: a gateway creates them with the first request.
    if after is None or (before is not None and after < before):
        return None
    return after - (before or 0.0)


def _compare(stream: Stream, block: Block, cap: float | None) -> Stream:
    return Stream(
        stream.harm.observe(block, cap),
        stream.bound.observe(block),
        stream.control_bad + block.a_bad,
        stream.control_total + block.a_total,
        stream.canary_bad + block.b_bad,
        stream.canary_total + block.b_total,
    )


def _promote_margins(memory: CanaryMemory, settings: AutoscaleSettings) -> dict[StreamName, float]:
    margins: dict[StreamName, float] = {"error": settings.error_promote_margin, "slow": settings.slow_promote_margin}
    return margins | {"wrong": settings.wrong_promote_margin} if memory.labelled else margins


def _numbers(memory: CanaryMemory, settings: AutoscaleSettings) -> dict[str, float]:
    numbers = {"evidence": round(memory.evidence, 2), "evidence_needed": round(-math.log(settings.harm_alpha), 2)}
    for name, stream in memory.streams.items():
        if stream.canary_total:
            numbers[f"{name}_control"] = round(stream.control_bad / stream.control_total, 4)
            numbers[f"{name}_canary"] = round(stream.canary_bad / stream.canary_total, 4)
            numbers[f"{name}_upper"] = stream.bound.upper(settings.promote_alpha)
    return numbers


def _harm_words(memory: CanaryMemory, name: StreamName, settings: AutoscaleSettings) -> str:
    stream = memory.streams[name]
    what = f"{_WORDS[name]} (over {memory.slow_above} ms)" if name == "slow" else _WORDS[name]
    return (
        f"{what}: {stream.canary_bad} of {stream.canary_total} in version {memory.canary}, "
        f"{stream.control_bad} of {stream.control_total} in version {memory.control} beside it "
        f"(false alarm rate at most {settings.harm_alpha:g})"
    )

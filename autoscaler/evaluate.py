"""The second step: what memory and the observed fleet mean now. No decision is taken here."""

from __future__ import annotations

from typing import NamedTuple

from autoscaler import canary, demand
from autoscaler.memory import PolicyMemory
from autoscaler.settings import AutoscaleSettings
from autoscaler.sizing import clamp
from trimtab.messages import FleetSpec, FleetState, PoolState

_GATEWAY = "gateway"
_SETTLING_SECONDS = 10.0


class View(NamedTuple):
    """The situation. `need` is None while the demand is unknown; `blind` says in words why telemetry cannot be trusted."""

    spec: FleetSpec
    state: FleetState
    now: float
    rate: float | None
    need: int | None
    settled: int | None
    blind: str | None
    gaps: list[str]
    verdict: canary.Verdict | None

    def pool(self, version: int | None) -> PoolState | None:
        """The observed pool of a version."""
        return next((pool for pool in self.state.pools if pool.version == version), None)

    def ready(self, version: int | None) -> int:
        """Replicas of a version that are ready now."""
        pool = self.pool(version)
        return sum(replica.phase == "ready" for replica in pool.replicas) if pool else 0

    @property
    def demand_words(self) -> str:
        """The demand as a person would say it."""
        return "demand is unknown" if self.rate is None else f"{self.rate:.1f} requests/s arrive"

    @property
    def demand_numbers(self) -> list[str]:
        """For a decision's `because`."""
        return [] if self.rate is None else [f"arrivals_per_second={self.rate:.1f}"]


def evaluate(memory: PolicyMemory, spec: FleetSpec, state: FleetState, now: float, settings: AutoscaleSettings) -> View:
    """The situation at `now`."""
    fresh = demand.is_fresh(memory.demand, now, settings)
    gaps = [finding for finding in memory.findings.values() if finding.kind == "telemetry_gap"]
    gateway_gap = next((finding for finding in gaps if finding.target in (None, _GATEWAY)), None)
    if fresh and gateway_gap is not None:
        blind = f"telemetry_gap is firing: {gateway_gap.summary}"
    elif not fresh:
        blind = _words_of_age(memory, now)
    else:
        blind = None
    rate = demand.estimate(memory.demand, settings).rate if blind is None else None
    need = None
    if rate is not None:
        need = clamp(demand.replicas_for(rate, spec.capacity_per_replica, settings.target_utilisation), spec)
    comparison = memory.rollout.canary
    return View(
        spec=spec,
        state=state,
        now=now,
        rate=rate,
        need=need,
        settled=demand.settled_need(memory.demand, now, settings),
        blind=blind,
        gaps=[finding.id for finding in gaps],
        verdict=canary.verdict(comparison, now, settings) if comparison else None,
    )


def settling(memory: PolicyMemory, now: float) -> bool:
    """Whether so little time has passed that missing telemetry is no news: the first scrape is still to come."""
    return memory.demand.seen is None and memory.started is not None and now - memory.started < _SETTLING_SECONDS


def _words_of_age(memory: PolicyMemory, now: float) -> str:
    seen = memory.demand.seen
    if seen is None:
        return "telemetry missing: the gateway was not seen yet"
    frozen = " and its page is frozen" if memory.demand.unchanged else ""
    return f"telemetry missing: the gateway was last seen alive {now - seen:.1f} s ago{frozen}"

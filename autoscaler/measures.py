"""The autoscaler's own metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from trimtab.messages import Decision, FleetState

DECISIONS = Counter("trimtab_decisions_total", "Decisions by action and outcome.", ["action", "outcome"])
STEP_SECONDS = Histogram(
    "trimtab_autoscaler_step_seconds",
    "Time of one step, from the first record to the accepted plan.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
ACT_AFTER_SECONDS = Histogram(
    "trimtab_decision_after_finding_seconds",
    "Time from a finding to the accepted plan that answers it.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ACTUATOR_FAILURES = Counter("trimtab_actuator_failures_total", "Requests to the actuator that failed.", ["request"])
REPLICAS = Gauge("trimtab_replicas", "Replicas by fleet and role of their pool, wanted and ready.", ["fleet", "role", "state"])
WEIGHT = Gauge("trimtab_pool_weight_ratio", "Share of traffic by fleet and role of the pool.", ["fleet", "role"])


def show(state: FleetState) -> None:
    """Sets the gauges to what was observed."""
    for role in ("stable", "canary", "previous"):
        pools = [pool for pool in state.pools if pool.role == role]
        REPLICAS.labels(state.fleet, role, "wanted").set(sum(pool.wanted for pool in pools))
        REPLICAS.labels(state.fleet, role, "ready").set(sum(each.phase == "ready" for pool in pools for each in pool.replicas))
        WEIGHT.labels(state.fleet, role).set(sum(pool.weight for pool in pools) / 100)


def forget(fleet: str) -> None:
    """Drops the gauges of a fleet that is gone."""
    for role in ("stable", "canary", "previous"):
        WEIGHT.remove(fleet, role)
        for state in ("wanted", "ready"):
            REPLICAS.remove(fleet, role, state)


def count(decision: Decision) -> None:
    """Counts one decision."""
    DECISIONS.labels(decision.action, decision.outcome).inc()

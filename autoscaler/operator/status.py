"""The status of a ModelFleet from everything that is known of it. Pure: the same knowledge gives the same status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from autoscaler.actuators.kubernetes_pods import FLEET, ROLE, SERVING, STATE
from autoscaler.baseline import Baseline
from autoscaler.operator.conditions import Seen, conditions, stamped
from trimtab.messages import Decision, Slo

Json = dict[str, Any]
_LEAST_REQUESTS = 20.0
_REASON = 500


def status(seen: Seen) -> Json:
    """All fields but those written elsewhere (plan, memory, requests, lastDecision); None where there is nothing to say."""
    rollout, state, plan = seen.memory.rollout, seen.state, seen.fleet.plan
    found: Json = {
        "observedGeneration": seen.fleet.generation,
        "conditions": stamped(conditions(seen), seen.fleet.status.get("conditions", []), seen.fleet.generation, stamp(seen.now)),
        "selector": f"{FLEET}={seen.fleet.name},{ROLE}=triton,{STATE}={SERVING}",
        "version": rollout.stable,
        "canaryVersion": rollout.candidate,
        "canaryWeight": _weight(plan, rollout.candidate),
        "phase": str(rollout.phase) if rollout.stable is not None else None,
        "quarantined": [item.replica for item in seen.memory.quarantined],
        "slo": slo_word(seen.memory.baseline, seen.memory.spec.slo) if seen.memory.spec else "Unknown",
    }
    if state is not None:
        live = [each for pool in state.pools for each in pool.replicas if each.phase in ("starting", "ready", "failed")]
        ready = sum(each.phase == "ready" for each in live)
        wanted = sum(pool.wanted for pool in state.pools)
        found |= {
            "replicas": len(live),
            "readyReplicas": ready,
            "desiredReplicas": wanted,
            "readiness": f"{ready}/{wanted}",
            "versions": [
                {
                    "version": pool.version,
                    "role": pool.role,
                    "weight": pool.weight,
                    "wanted": pool.wanted,
                    "ready": sum(each.phase == "ready" for each in pool.replicas),
                }
                for pool in state.pools
                if pool.wanted or pool.weight
            ],
        }
    return found


def changed(new: Json, old: Json) -> Json:
    """What of `new` is other than in `old`, as a merge patch."""
    return {key: value for key, value in new.items() if _said(value) != old.get(key)}


def _said(value: Any) -> Any:
    """Without the None that removes a field: the API does not give them back."""
    return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value


def last_decision(decision: Decision) -> Json:
    """For `status.lastDecision`; None removes what an earlier decision had."""
    return {
        "id": decision.id,
        "action": decision.action,
        "outcome": decision.outcome,
        "version": decision.version,
        "target": decision.target,
        "reason": decision.reason[:_REASON],
        "time": stamp(decision.time),
    }


def slo_word(baseline: Baseline, slo: Slo) -> str:
    """Met, Missed, or Unknown while too few requests were seen in the last minute of the version that serves."""
    total = baseline.latency.get("+Inf", 0.0)
    if baseline.error.total < _LEAST_REQUESTS or total < _LEAST_REQUESTS:
        return "Unknown"
    within = [bound for bound in baseline.latency if bound != "+Inf" and float(bound) <= slo.p99_seconds * 1000]
    fast = max((baseline.latency[bound] for bound in within), default=0.0)
    # A histogram knows only its bounds: what lies between the last one within the promise and the next counts as slow.
    fine = fast / total >= 0.99 and baseline.error.bad / baseline.error.total <= slo.error_ratio
    return "Met" if fine else "Missed"


def stamp(time: float) -> str:
    """Unix seconds as the API writes moments."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _weight(plan: Any, candidate: int | None) -> int | None:
    if plan is None or candidate is None:
        return None
    return next((int(pool.weight) for pool in plan.pools if pool.version == candidate), None)

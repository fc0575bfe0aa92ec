"""From memory to a whole plan, and between a plan and what is observed."""

from __future__ import annotations

import msgspec

from autoscaler.evaluate import View
from autoscaler.memory import PolicyMemory
from autoscaler.rollout import Rollout, weights
from autoscaler.settings import AutoscaleSettings
from autoscaler.sizing import clamp, pool_sizes
from trimtab.messages import FleetPlan, FleetSpec, FleetState, PoolPlan, PoolRole


def adopt(memory: PolicyMemory, spec: FleetSpec, state: FleetState) -> PolicyMemory:
    """Memory that knows which version serves: at the first step, what runs is taken over as it is.

    A fleet of which nothing runs starts with the version of its spec. A canary that an earlier autoscaler left behind without
    its memory is released anew; a previous version that it kept warm is drained.
    """
    if memory.rollout.stable is not None:
        return memory
    pools = [pool for pool in state.pools if pool.wanted > 0]
    stable = next((pool for pool in pools if pool.role == "stable"), None)
    if stable is None:
        rollout = msgspec.structs.replace(memory.rollout, stable=spec.version)
        return msgspec.structs.replace(memory, rollout=rollout, size=clamp(spec.min_replicas, spec))
    plan = FleetPlan(
        fleet=state.fleet,
        decision="",
        pools=[PoolPlan(version=pool.version, role=pool.role, replicas=pool.wanted, weight=pool.weight) for pool in pools],
        quarantined=[replica.name for pool in pools for replica in pool.replicas if replica.phase == "quarantined"],
    )
    rollout = msgspec.structs.replace(memory.rollout, stable=stable.version)
    return msgspec.structs.replace(memory, rollout=rollout, size=clamp(stable.wanted, spec), plan=plan)


def plan_for(memory: PolicyMemory, view: View, settings: AutoscaleSettings) -> FleetPlan:
    """The whole fleet as it should be."""
    rollout, size = memory.rollout, memory.size or clamp(1, view.spec)
    before = {pool.version: pool.replicas for pool in memory.plan.pools} if memory.plan else {}
    need = view.need if view.need is not None else size
    sizes = pool_sizes(view.spec, rollout, size, need, before, settings)
    shares = weights(rollout, settings.canary_weights, settings.guard_weight)
    return FleetPlan(
        fleet=view.spec.fleet,
        decision=memory.plan.decision if memory.plan else "",
        pools=[
            PoolPlan(version=version, role=_role(rollout, version), replicas=count, weight=shares[version])
            for version, count in sizes.items()
        ],
        quarantined=[item.replica for item in memory.quarantined],
    )


def as_observed(plan: FleetPlan | None, state: FleetState) -> bool:
    """Whether the actuator already holds this plan, so that there is nothing to apply."""
    if plan is None:
        return True
    planned = {(pool.version, pool.role, pool.replicas, pool.weight) for pool in plan.pools}
    held = {(pool.version, pool.role, pool.wanted, pool.weight) for pool in state.pools if pool.wanted or pool.weight}
    replicas = {replica.name: replica for pool in state.pools for replica in pool.replicas}
    wanted_out = {name for name in plan.quarantined if name in replicas}
    out = {name for name, replica in replicas.items() if replica.phase == "quarantined"}
    serving_versions = {pool.version for pool in plan.pools}
    return planned == held and wanted_out == {name for name in out if replicas[name].version in serving_versions}


def _role(rollout: Rollout, version: int) -> PoolRole:
    if version == rollout.stable:
        return "stable"
    return "canary" if version == rollout.candidate else "previous"

"""How many replicas each pool gets: one owner for demand and rollouts, so that neither undoes the other.

The pool that serves has `size` replicas. A canary gets replicas for the share of the demand that it will have at the *next* step,
and for the whole demand at the last one, so that a promotion never meets a pool that is too small. All pools together stay within
max_replicas plus the rollout's extra; where that is not enough, the pool that loses traffic gives way, but never below the share
that it still serves.
"""

from __future__ import annotations

import math

from autoscaler.rollout import Phase, Rollout, weights
from autoscaler.settings import AutoscaleSettings
from trimtab.messages import FleetSpec


def clamp(count: int, spec: FleetSpec) -> int:
    """Within the replicas that the owner allows."""
    return min(max(count, spec.min_replicas, 1), max(spec.max_replicas, 1))


def ceiling(spec: FleetSpec, rollout: Rollout, settings: AutoscaleSettings) -> int:
    """The most replicas of all pools together; during a rollout more than max_replicas."""
    most = max(spec.max_replicas, 1)
    if rollout.candidate is None and rollout.previous is None:
        return most
    return most + max(1, math.ceil(most * settings.rollout_extra_ratio))


def candidate_size(rollout: Rollout, need: int, size: int, settings: AutoscaleSettings) -> int:
    """Replicas of the canary pool: enough for the share that comes next, and as many per request as the pool beside it has.

    Otherwise a stable pool that is still large after a surge would make every canary look slow.
    """
    steps = settings.canary_weights
    if rollout.phase is Phase.STARTING:
        return _share(max(need, size), steps[0])
    if rollout.step + 1 < len(steps):
        return _share(max(need, size), steps[rollout.step + 1])
    return max(need, _share(size, steps[-1]))


def pool_sizes(
    spec: FleetSpec, rollout: Rollout, size: int, need: int, before: dict[int, int], settings: AutoscaleSettings
) -> dict[int, int]:
    """Version -> replicas. `need`: for the whole demand now; `before`: what was planned last (a pool in use does not shrink)."""
    if rollout.stable is None:
        return {}
    most = ceiling(spec, rollout, settings)
    share = weights(rollout, settings.canary_weights, settings.guard_weight)
    if rollout.previous is not None:
        previous = min(max(before.get(rollout.previous, size), _share(need, share[rollout.previous])), most - size)
        return {rollout.stable: size, rollout.previous: max(1, previous)}
    if rollout.candidate is not None:
        wanted = max(candidate_size(rollout, need, size, settings), before.get(rollout.candidate, 0))
        serving = max(_share(need, share[rollout.stable]), min(size, most - wanted))
        return {rollout.stable: min(serving, size), rollout.candidate: max(1, min(wanted, most - min(serving, size)))}
    return {rollout.stable: size}


def _share(need: int, percent: int) -> int:
    return max(1, math.ceil(need * percent / 100))

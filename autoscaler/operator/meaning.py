"""What a ModelFleet means now: the FleetSpec for the policy, and the policy's settings for this fleet. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from autoscaler.memory import PolicyMemory
from autoscaler.operator.api import ModelFleetSpec
from autoscaler.operator.fleet import Fleet
from autoscaler.operator.windows import bounds, first
from autoscaler.rollout import Rollout
from autoscaler.settings import AutoscaleSettings
from trimtab.messages import FleetSpec, Slo

RELEASED_AT = "trimtab.dev/released-at"
"""Annotation: a moment (RFC 3339). Newer than the last release, it releases the version of the spec again."""


class Meaning(NamedTuple):
    """The spec for the policy. `freeze`: name of the freeze that holds now; `waits`: the version that waits for its end."""

    spec: FleetSpec
    freeze: str | None = None
    waits: int | None = None


def meaning(
    fleet: Fleet, memory: PolicyMemory, now: float, *, withdrawn: int | None = None, promote: int | None = None
) -> Meaning:
    """The FleetSpec at unix time `now`.

    Its `time` moves only with a release: a change of bounds or a pause is no new release of a version that was rolled back.
    `withdrawn`: version of the spec that a person rolled back; `promote`: version that a person promotes now.
    Raises `SettingsError` for a time zone that does not exist.
    """
    spec, old = fleet.spec, memory.spec
    frozen = first(spec.freezes, now)
    version, waits = spec.version, None
    if withdrawn == version:
        version = way_back(memory.rollout, version) or version
    known = {old.version, memory.rollout.stable, memory.rollout.previous} if old else {version}
    if old is not None and frozen is not None and version not in known:
        version, waits = old.version, version
    least, most = bounds(spec, now)
    return Meaning(
        FleetSpec(
            fleet=fleet.id,
            model=spec.model,
            version=version,
            min_replicas=least,
            max_replicas=most,
            slo=Slo(p99_seconds=spec.slo.p99_milliseconds / 1000, error_ratio=spec.slo.error_percent / 100),
            capacity_per_replica=spec.capacity_per_replica,
            paused=spec.paused or fleet.deleting,
            dry_run=spec.dry_run,
            promote=promote,
            time=_time(fleet, old, version, now, frozen is not None),
        ),
        (frozen.name or "freeze") if frozen is not None else None,
        waits,
    )


def way_back(rollout: Rollout, version: int) -> int | None:
    """The version that can serve in place of this one at once; None when none is warm."""
    if rollout.stable is not None and rollout.stable != version:
        return rollout.stable
    return rollout.previous


def settings_for(spec: ModelFleetSpec, base: AutoscaleSettings) -> AutoscaleSettings:
    """The policy's settings for one fleet: its own where its spec has a say, the operator's elsewhere."""
    rollout, heal, scaling = spec.rollout, spec.remediation, spec.scaling
    return base.model_copy(
        update={
            "target_utilisation": scaling.target_utilisation_percent / 100,
            "demand_window_seconds": float(scaling.demand_window_seconds),
            "scale_down_window_seconds": float(scaling.scale_down_window_seconds),
            "canary_weights": list(rollout.steps),
            "step_seconds": float(rollout.step_seconds),
            "guard_seconds": float(rollout.guard_seconds),
            "guard_weight": rollout.guard_weight,
            "start_deadline_seconds": float(rollout.start_deadline_seconds),
            "rollout_extra_ratio": max(base.rollout_extra_ratio, 1 - rollout.steps[-1] / 100),
            "quarantine_share": heal.max_unavailable_percent / 100,
            "quarantines_per_window": heal.quarantines_per_window if heal.quarantine else 0,
            "quarantine_window_seconds": float(heal.window_seconds),
        }
    )


def _time(fleet: Fleet, old: FleetSpec | None, version: int, now: float, frozen: bool) -> float:
    if old is None:
        return now
    if version != old.version:
        return max(now, old.time + 0.001)
    again = _moment(fleet.annotations.get(RELEASED_AT))
    return again if again is not None and old.time < again <= now and not frozen else old.time


def _moment(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None
    except (ValueError, TypeError):
        return None

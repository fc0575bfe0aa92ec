"""What the policy remembers from one step to the next. Plain data, so that it can be written to a file and read back."""

from __future__ import annotations

import msgspec

from autoscaler.baseline import Baseline
from autoscaler.demand import DemandMemory
from autoscaler.gateways import Merged
from autoscaler.rollout import Rollout
from trimtab.messages import Decision, Finding, FleetPlan, FleetSpec, FleetState, Snapshot


class Quarantined(msgspec.Struct, frozen=True):
    """A replica that was taken out, by which cause, and since when that cause is gone (None: it is not)."""

    replica: str
    version: int
    cause: str
    since: float
    resolved_at: float | None = None


class PolicyMemory(msgspec.Struct, frozen=True):
    """Everything between two steps."""

    started: float | None = None
    spec: FleetSpec | None = None
    demand: DemandMemory = DemandMemory()
    baseline: Baseline = Baseline()
    merged: dict[str, Merged] = {}
    """The targets of a role (gateway, app) whose counters are summed, by role."""
    rollout: Rollout = Rollout()
    findings: dict[str, Finding] = {}
    """The findings that fire now, by id."""
    size: int | None = None
    """Replicas that the pool which serves is meant to have."""
    quarantined: list[Quarantined] = []
    quarantine_times: list[float] = []
    said: dict[str, float] = {}
    """Refusals and holds that were said, by cause, so that they are not repeated at every step."""
    blind_since: float | None = None
    """Since when telemetry cannot be trusted; None while it can."""
    plan: FleetPlan | None = None


class Inputs(msgspec.Struct, frozen=True):
    """What is new since the last step: the observed state, and the records of three topics, in order."""

    state: FleetState
    specs: list[FleetSpec] = []
    snapshots: list[Snapshot] = []
    findings: list[Finding] = []


class Step(msgspec.Struct, frozen=True):
    """What a step ends with. `plan` is what should be applied now; None when the fleet is already as planned."""

    memory: PolicyMemory
    plan: FleetPlan | None
    decisions: list[Decision]

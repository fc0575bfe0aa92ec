"""What an actuator is, and which plans none of them accepts."""

from __future__ import annotations

from typing import Protocol

from trimtab.errors import SettingsError
from trimtab.messages import FleetPlan, FleetState


class Actuator(Protocol):
    """Observes fleets and makes plans true."""

    def observe(self, fleet: str) -> FleetState:
        """What runs now. Raises `Unavailable` when that cannot be known, `SettingsError` for a fleet that does not exist."""

    def apply(self, plan: FleetPlan) -> None:
        """Makes it so; idempotent, returns when the plan is accepted. Raises `Unavailable`, or `SettingsError` for a bad plan."""


def check(plan: FleetPlan) -> None:
    """Raises `SettingsError` in words for a plan that cannot be meant."""
    versions = [pool.version for pool in plan.pools]
    if len(set(versions)) != len(versions):
        raise SettingsError(f"the plan for {plan.fleet} has a version in two pools: {versions}")
    if (weights := sum(pool.weight for pool in plan.pools)) != 100:
        raise SettingsError(f"the weights of the plan for {plan.fleet} add up to {weights}, not to 100")
    for pool in plan.pools:
        if pool.replicas < 0 or not 0 <= pool.weight <= 100 or (pool.weight and not pool.replicas):
            raise SettingsError(f"version {pool.version} cannot have {pool.replicas} replicas and {pool.weight} % of the traffic")

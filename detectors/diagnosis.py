"""From verdicts to findings: one finding per cause.

The order is the diagnosis. Missing telemetry first, for it looks like every fault. Then what breaks an invariant, then GPUs,
then versions against each other, then replicas against peers and their past, then what demand explains. What an earlier step
explains, a later one does not report again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from detectors import replica_rules, version_rules
from detectors.context import LEARNED, REMEMBER_TICKS, Context
from detectors.gap import GapWatch
from detectors.lifecycle import Condition, Lifecycles
from detectors.members.change_point import ChangePointMember
from detectors.observe import Observation
from detectors.settings import DetectSettings
from trimtab.messages import Finding, FindingKind

HELD_IN_A_GAP: frozenset[FindingKind] = frozenset(
    ("replica_fault", "version_regression", "quality_shift", "dependency_fault", "saturation", "demand_shift", "gpu_fault")
)
HELD_AFTER: frozenset[FindingKind] = HELD_IN_A_GAP - {"gpu_fault"}


class Diagnosis:
    """Keeps the lives of findings, the watch for gaps, and the learned detectors' last word on each target."""

    def __init__(self, fleet: str, settings: DetectSettings) -> None:
        self._gap = GapWatch(settings)
        self._lives = Lifecycles(fleet, settings.interval, settings.repeat, settings.clear_ticks)
        self._remembered: dict[str, dict[str, tuple[int, float, str]]] = {}

    @property
    def gap(self) -> bool:
        """Telemetry is missing in the last tick."""
        return self._gap.now

    def diagnose(self, context: Context, change: ChangePointMember) -> list[Finding]:
        """The messages of one tick."""
        seen = context.seen
        self._remember(context)
        context = replace(context, remembered=self._remembered)
        conditions = self._gap.look(seen, context.violations)
        held: frozenset[FindingKind] = frozenset()
        if self._gap.now:
            held = HELD_IN_A_GAP
        elif self._gap.holding:
            held = HELD_AFTER
        if not self._gap.now:
            conditions += _faults(context, change)
        return self._lives.step(seen.tick, seen.time, _once(conditions), held)

    def suspects(self, seen: Observation) -> set[str]:
        """The replicas about which there is a finding, by themselves, with their version or with the fleet; demand is none."""
        found: set[str] = set()
        for condition in self._lives.firing():
            if condition.target is not None:
                found.add(condition.target)
            elif condition.kind != "demand_shift":
                found |= {h.target for h in seen.replicas if condition.version in (None, h.version)}
        return found

    def _remember(self, context: Context) -> None:
        tick = context.seen.tick
        for detector in LEARNED:
            verdict = context.verdicts.get(detector)
            for target, score, top in zip(verdict.targets, verdict.scores, verdict.top, strict=True) if verdict else ():
                if np.isfinite(score):
                    self._remembered.setdefault(target, {})[detector] = (tick, float(score), top[0][0] if top else "")
        fresh = {t: {d: v for d, v in said.items() if tick - v[0] <= REMEMBER_TICKS} for t, said in self._remembered.items()}
        self._remembered = {target: said for target, said in fresh.items() if said}

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {"gap": self._gap.dump(), "lives": self._lives.dump(), "remembered": self._remembered}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._gap.restore(state["gap"])
        self._lives.restore(state["lives"])
        self._remembered = {t: {d: (v[0], v[1], v[2]) for d, v in said.items()} for t, said in state["remembered"].items()}


def _faults(c: Context, change: ChangePointMember) -> list[Condition]:
    dead = replica_rules.silent_replicas(c)
    gpus = replica_rules.sick_gpus(c)
    failing, slow = replica_rules.failing_replicas(c), replica_rules.slow_replicas(c)
    sick = {x.target for x in (*dead, *gpus) if x.target} | _standing_out(c, failing + slow)
    versions = version_rules.worse_versions(c, sick)
    regressed = {x.version for x in (*versions, *dead) if x.kind in ("version_regression", "quality_shift")}
    explained = {x.target for x in dead + gpus}
    replicas = [x for x in failing + slow if x.version not in regressed and x.target not in explained]
    broken: list[Condition] = [*dead, *gpus, *versions, *replicas]
    sick_versions = {x.version for x in broken}
    conditions = broken + version_rules.demand(c, change) + version_rules.saturated(c, change, sick_versions)
    return conditions + version_rules.dependency(c, explained=bool(broken))


def _standing_out(c: Context, conditions: list[Condition]) -> set[str]:
    """Replicas that are worse than peers of the same version."""
    return {x.target for x in conditions if x.target and c.pool_size(x.version) >= 2}


def _once(conditions: list[Condition]) -> list[Condition]:
    """One condition per kind and subject: the first."""
    found: dict[tuple[str, str], Condition] = {}
    for condition in conditions:
        found.setdefault((condition.kind, condition.subject), condition)
    return list(found.values())

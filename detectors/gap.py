"""Is the telemetry itself missing? Decided before anything else, because missing numbers look like faults."""

from __future__ import annotations

from typing import Any

from detectors.lifecycle import Condition
from detectors.members.invariants import Violation
from detectors.observe import Health, Observation
from detectors.settings import DetectSettings
from trimtab.messages import Evidence

SINGLE_TICKS = 3  # failed or silent ticks of one page (gateway, traffic, GPU) before its own gap is a finding


class GapWatch:
    """Counts ticks of a gap and of the quiet time after it."""

    def __init__(self, settings: DetectSettings) -> None:
        self._settings = settings
        self._run = 0
        self._quiet = 0

    @property
    def now(self) -> bool:
        """Most targets are missing in this tick."""
        return self._run > 0

    @property
    def holding(self) -> bool:
        """No finding about replicas or versions may arise: a gap, or just after one."""
        return self._run > 0 or self._quiet > 0

    def look(self, seen: Observation, violations: list[Violation]) -> list[Condition]:
        """The gaps of this tick, the whole fleet's or those of single pages."""
        targets = [h for h in (*seen.replicas, *seen.others) if h.ever_up]
        missing = [h for h in targets if h.fails or h.silent]
        frozen = {v.target: v for v in violations if v.what == "frozen"}
        stale = [h for h in targets if h.target in frozen]
        whole = _most(missing, targets, self._settings.gap_share)
        still = _most(stale, targets, self._settings.gap_share)
        self._quiet = self._settings.gap_quiet_ticks if whole or still else max(0, self._quiet - 1)
        self._run = self._run + 1 if whole or still else 0
        if whole or still:
            return [self._whole(missing if whole else stale, targets, whole)]
        others_up = any(h.role == "gateway" and h.up for h in targets)
        return [c for h in targets if not _replaced(h, others_up) for c in self._single(h, frozen.get(h.target))]

    def _whole(self, bad: list[Health], targets: list[Health], whole: bool) -> Condition:
        errors = sorted({h.error for h in bad if h.error})
        how = "do not answer" if whole else "show frozen pages"
        why = f" ({errors[0]})" if errors else (" (nothing was heard of them)" if whole else "")
        evidence = [
            Evidence(
                detector="gap",
                series="up",
                observed=1 - len(bad) / len(targets),
                expected=1.0,
                threshold=1 - self._settings.gap_share,
            )
        ]
        words = f"{len(bad)} of {len(targets)} targets {how} at the same time{why}: the fleet itself is unknown"
        return Condition("telemetry_gap", "fleet", "warning", 0.99, words, evidence, need=self._settings.gap_ticks)

    def _single(self, h: Health, frozen: Violation | None) -> list[Condition]:
        if frozen:
            evidence = [Evidence(detector="invariants", series="page", observed=frozen.observed, expected=0.0, score=0.999999)]
            words = f"{frozen.words} although it should change: its numbers are stale"
        elif h.role != "triton" and max(h.fails, h.silent) >= SINGLE_TICKS:
            evidence = [Evidence(detector="invariants", series="up", observed=0.0, expected=1.0, score=0.999999)]
            why = f" ({h.error})" if h.error else ""
            words = f"{h.target} has not answered for {max(h.fails, h.silent)} ticks{why}: what it measures is unknown"
        else:
            return []
        return [Condition("telemetry_gap", h.target, "warning", 0.95, words, evidence, target=h.target, version=h.version)]

    def dump(self) -> list[int]:
        """The state as plain values."""
        return [self._run, self._quiet]

    def restore(self, state: list[Any]) -> None:
        """Take up a dumped state."""
        self._run, self._quiet = state


def _replaced(h: Health, others_up: bool) -> bool:
    """A gateway that is not even said to fail while others answer: its pod was replaced, and the others have its traffic."""
    return h.role == "gateway" and others_up and h.silent > 0 and h.fails == 0


def _most(bad: list[Health], targets: list[Health], share: float) -> bool:
    """Most targets, of more than one role where more than one is watched: all replicas alone may really have died."""
    if targets and all(h.silent for h in targets):
        return True
    roles = {h.role for h in targets}
    return len(bad) >= 2 and len(bad) >= share * len(targets) and len({h.role for h in bad}) >= min(2, len(roles))

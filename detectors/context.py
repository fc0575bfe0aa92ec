"""What the rules look at in one tick, with the questions that several of them ask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from detectors.features import Scaler
from detectors.lifecycle import Condition
from detectors.members.base import Verdict
from detectors.members.canary import Comparison
from detectors.members.invariants import Violation
from detectors.observe import Health, Observation
from detectors.settings import DetectSettings
from trimtab.messages import Evidence, FindingKind, FleetSpec, PoolRole, Severity

LEARNED = ("isolation_forest", "cnn_lstm")
STRAINED = 3.0  # a scrape that takes so many times longer than usual had to wait for the machine
REMEMBER_TICKS = 10  # a replica that died has no score now: what was said of it before still tells


@dataclass(frozen=True)
class Context:
    """One tick. `remembered` holds (tick, score, strongest series) of the learned detectors' last word on each target."""

    seen: Observation
    settings: DetectSettings
    spec: FleetSpec | None
    verdicts: dict[str, Verdict]
    violations: list[Violation]
    comparisons: list[Comparison]
    surging: bool
    expected: dict[str, float]
    scaler: Scaler | None
    remembered: dict[str, dict[str, tuple[int, float, str]]]

    @property
    def interval(self) -> float:
        """Seconds per tick."""
        return self.settings.interval

    def starved(self, target: str) -> bool:
        """Whether the other targets' scrapes take far longer than usual too: then it is the machine that they share.

        What a sick replica does to itself does not slow the pages of gateway, traffic and GPUs.
        """
        others = [h.strain for h in (*self.seen.replicas, *self.seen.others) if h.target != target and h.up]
        return bool(others) and 2 * sum(strain >= STRAINED for strain in others) >= len(others)

    def score(self, detector: str, target: str) -> float:
        """A detector's score of a target in this tick, NaN when it has none."""
        verdict = self.verdicts.get(detector)
        return float(verdict.scores[verdict.targets.index(target)]) if verdict and target in verdict.targets else math.nan

    def top(self, detector: str, target: str) -> list[tuple[str, float]]:
        """What contributed most to that score."""
        verdict = self.verdicts.get(detector)
        return verdict.top[verdict.targets.index(target)] if verdict and target in verdict.targets else []

    def learned(self, target: str) -> list[Evidence]:
        """The learned detectors' word on a target, of this tick or a few ticks ago."""
        found = []
        for detector, (tick, score, series) in sorted(self.remembered.get(target, {}).items()):
            ago = self.seen.tick - tick
            if ago <= REMEMBER_TICKS:
                window = (ago + 1) * self.interval
                found.append(
                    Evidence(detector=detector, series=series, score=score, threshold=self.settings.alarm, window=window)
                )
        return found

    def role(self, version: int | None) -> PoolRole | None:
        """The role of a version's pool, when a replica of it tells."""
        return cast(PoolRole | None, next((h.pool for h in self.seen.replicas if h.version == version and h.pool), None))

    def is_canary(self, h: Health) -> bool:
        """Whether a replica belongs to the version that is on trial."""
        return h.pool == "canary"

    def pool_size(self, version: int | None) -> int:
        """Replicas of a version that have answered at least once."""
        return sum(h.version == version and h.ever_up for h in self.seen.replicas)

    def expected_seconds(self, target: str, i: int) -> float:
        """Infer seconds that are normal for a replica now: its version's past, or what training saw at this load."""
        if target in self.expected:
            return self.expected[target]
        if self.scaler is None:
            return math.nan
        requests = float(self.seen.column("requests")[i])
        return self.scaler.expected_seconds(requests)

    def replica(
        self,
        kind: FindingKind,
        h: Health,
        severity: Severity,
        confidence: float,
        words: str,
        evidence: list[Evidence],
        need: int = 1,
        ago: int = 0,
    ) -> Condition:
        """A condition of one replica."""
        role = cast(PoolRole | None, h.pool)
        return Condition(kind, h.target, severity, confidence, words, evidence, h.target, role, h.version, need, ago)

"""Many scores of one replica to one: the harmonic mean p-value (Wilson 2019), which holds for dependent detectors.

p = K / sum(1 / p_k) over the K members that know something; the score of "ensemble" is 1 - p. One sure member among four
unsure ones still counts (p grows at most K-fold); several mildly surprised ones do not add up to an alarm by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from detectors.calibration import FLOOR
from detectors.members.base import Verdict
from detectors.observe import Observation

NAME = "ensemble"
OPTIONAL = "invariants"  # takes part only where it has something to say: holding says nothing about the rest


def fuse(seen: Observation, verdicts: Mapping[str, Verdict]) -> Verdict:
    """The ensemble's verdict on each replica; NaN where no member knows anything."""
    targets = [h.target for h in seen.replicas]
    scores, top = np.full(len(targets), np.nan), []
    by_member = {name: dict(zip(v.targets, v.scores, strict=True)) for name, v in verdicts.items()}
    for i, target in enumerate(targets):
        found = {n: float(m[target]) for n, m in by_member.items() if target in m and np.isfinite(m[target])}
        if found.get(OPTIONAL) == 0.0:
            del found[OPTIONAL]
        if found:
            scores[i] = 1 - len(found) / sum(1 / max(1 - s, FLOOR) for s in found.values())
        top.append(sorted(((n, round(s, 6)) for n, s in found.items()), key=lambda pair: -pair[1])[:3])
    return Verdict(targets, np.clip(scores, 0.0, 1 - FLOOR), top)

"""What every detector is."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from detectors.observe import Observation

Array = npt.NDArray[np.float64]


class Verdict(NamedTuple):
    """Scores [n] of `targets` in one tick, NaN while warming up, and what contributed most to each."""

    targets: list[str]
    scores: Array
    top: list[list[tuple[str, float]]]


class Detector(Protocol):
    """Judges each tick, then learns from it. Causal: a score depends on this tick and earlier ones only."""

    name: str

    def score(self, seen: Observation) -> Verdict:
        """How unusual this tick is; must be called once per tick, in order."""
        ...

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state: what follows is as if nothing had happened."""
        ...


class LearnedDetector(Detector, Protocol):
    """A detector that was trained, and whose calibration goes on with what proves to be normal."""

    def settle(self, suspects: set[str]) -> None:
        """Called once per tick after `score`: targets about which there is a finding, so that they are not learned."""
        ...


def strongest(names: list[str], values: Array, count: int = 3) -> list[tuple[str, float]]:
    """The `count` largest of |values| [F] that are known, with their names."""
    size = np.nan_to_num(np.abs(values))
    return [(names[i], round(float(values[i]), 3)) for i in np.argsort(-size, kind="stable")[:count] if size[i] > 0]

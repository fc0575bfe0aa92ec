"""Isolation Forest over load-conditioned residuals: is this combination of signals easy to tell from normal ones?

Statistic: s = 2^(-E[path length] / c(n)) over the trees (Liu, Ting, Zhou 2008), of nine features of a window: the residuals of
this tick by group, the largest, their root mean square, and the largest that lasts (median of 3 ticks). Score: calibrated
tail of s on normal ticks (see `calibration`). A false alarm costs an entry in the evidence of a finding, never a finding by
itself. Trained with scikit-learn, scored on flattened trees in numpy (scikit-learn's own `score_samples` takes milliseconds for
ten rows, this takes a fraction of one). Memory: 64 trees of at most 511 nodes, 4 rows of residuals per replica.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from detectors.calibration import Calibration, Recalibration
from detectors.features import NAMES
from detectors.members.base import Array, Verdict, strongest
from detectors.observe import Observation

Indices = npt.NDArray[np.int64]

WINDOW = 4
WARM_UP = 2
NOISE = 0.35  # in normal scales
MIN_KNOWN = 3  # features that must be known for a judgement
_GROUPS = [
    [NAMES.index(name) for name in names]
    for names in (
        ("failures",),
        ("request_seconds", "infer_seconds"),
        ("queue_seconds", "pending"),
        ("memory_bytes",),
        ("confidence",),
        ("gpu_temperature", "gpu_power", "gpu_utilisation", "gpu_memory"),
    )
]
FEATURE_COUNT = len(_GROUPS) + 3


@dataclass(frozen=True)
class Trees:
    """An isolation forest as arrays [trees, nodes]: children, the feature and threshold of a split, and path lengths.

    A leaf is its own child. `normal` is c(n), the path length that counts as ordinary.
    """

    left: Indices
    right: Indices
    feature: Indices
    threshold: Array
    length: Array
    normal: float

    @classmethod
    def of(cls, forest: Any) -> Trees:
        """From a fitted `sklearn.ensemble.IsolationForest`."""
        trees = [estimator.tree_ for estimator in forest.estimators_]
        shape = (len(trees), max(tree.node_count for tree in trees))
        left, right, feature = (np.zeros(shape, np.int64) for _ in range(3))
        threshold, length = np.full(shape, np.inf), np.zeros(shape)
        for k, tree in enumerate(trees):
            n = tree.node_count
            leaf, nodes = tree.children_left < 0, np.arange(n)
            left[k, :n] = np.where(leaf, nodes, tree.children_left)
            right[k, :n] = np.where(leaf, nodes, tree.children_right)
            feature[k, :n] = np.where(leaf, 0, tree.feature)
            threshold[k, :n] = np.where(leaf, np.inf, tree.threshold)
            depth = np.zeros(n)
            for node in nodes[~leaf]:  # children come after their parents
                depth[tree.children_left[node]] = depth[tree.children_right[node]] = depth[node] + 1
            length[k, :n] = depth + average_path(tree.n_node_samples.astype(np.float64))
        return cls(left, right, feature, threshold, length, float(average_path(np.array([float(forest.max_samples_)]))[0]))

    def to_bytes(self) -> bytes:
        """As an npz archive of numbers."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.__dict__)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Trees:
        """From what `to_bytes` gave; raises `ValueError` for anything else."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in ("left", "right", "feature", "threshold", "length", "normal")}
        except (KeyError, OSError, EOFError, BadZipFile) as error:
            raise ValueError(f"not a forest: {error}") from error
        normal = float(arrays.pop("normal"))
        shape, nodes = arrays["left"].shape, np.arange(arrays["left"].shape[-1])
        children = np.stack([arrays["left"], arrays["right"]])
        if (
            any(a.shape != shape for a in arrays.values())
            or not ((children < shape[1]) & ((children >= nodes) | (children == 0))).all()
        ):
            raise ValueError("the trees of the forest point outside themselves")
        if not ((arrays["feature"] >= 0) & (arrays["feature"] < FEATURE_COUNT)).all():
            raise ValueError("the trees of the forest ask for features that do not exist")
        return cls(**arrays, normal=normal)

    def statistic(self, rows: Array) -> Array:
        """s [n] in 0..1 of rows [n, features]; larger is easier to isolate."""
        x = rows.astype(np.float32).astype(np.float64)  # scikit-learn compares in single precision
        k = np.arange(self.left.shape[0])
        node = np.zeros((len(x), len(k)), np.int64)
        row = np.arange(len(x))[:, None]
        for _ in range(self.left.shape[1]):
            goes_left = x[row, self.feature[k, node]] <= self.threshold[k, node]
            below = np.where(goes_left, self.left[k, node], self.right[k, node])
            if (below == node).all():
                break
            node = below
        found: Array = 2.0 ** (-self.length[k, node].mean(axis=1) / self.normal)
        return found


def average_path(n: Array) -> Array:
    """c(n): mean path length of an unsuccessful search in a binary search tree of n samples."""
    harmonic = np.log(np.maximum(n - 1, 1)) + np.euler_gamma
    return np.where(n > 2, 2 * harmonic - 2 * (n - 1) / np.maximum(n, 1), np.where(n == 2, 1.0, 0.0))


def window_features(window: Array) -> Array:
    """Features [9] of residuals [w, F], the newest last; unknown counts as expected.

    Few and grouped, because a forest dilutes: each split takes a random feature, and a fault that moves 2 of 20 is rarely met.
    The three aggregates move with any fault; the groups say together with what.
    """
    known = np.nan_to_num(window)
    now, lasting = known[-1], np.median(known[-3:], axis=0)
    grouped = [max(now[columns], key=abs) for columns in _GROUPS]
    return np.array([*grouped, np.abs(now).max(), np.sqrt((now * now).mean()), np.abs(lasting).max()])


class IsolationForestMember:
    """The detector `isolation_forest`."""

    name = "isolation_forest"

    def __init__(self, trees: Trees, calibration: Calibration) -> None:
        self._trees, self._calibration = trees, Recalibration(calibration)
        self._windows: dict[str, list[list[float]]] = {}

    def score(self, seen: Observation) -> Verdict:
        """Scores per replica; NaN for the first ticks of a replica and when hardly anything is known."""
        names = [h.target for h in seen.replicas]
        rows, ready, windows = [], [], {}
        for i, name in enumerate(names):
            window = self._windows.get(name, [])
            if np.isfinite(seen.residuals[i]).sum() >= MIN_KNOWN:
                window = [*window, seen.residuals[i].tolist()][-WINDOW:]
                if len(window) >= WARM_UP:
                    rows.append(window_features(np.array(window)))
                    ready.append(i)
            windows[name] = window
        self._windows = windows
        scores = np.full(len(names), np.nan)
        if rows:
            scores[ready] = self._calibration.score([names[i] for i in ready], self._trees.statistic(np.array(rows)))
        return Verdict(names, scores, [strongest(NAMES, row) for row in seen.residuals])

    def settle(self, suspects: set[str]) -> None:
        """See `LearnedDetector`."""
        self._calibration.settle(suspects)

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {"windows": self._windows, "calibration": self._calibration.dump()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._windows = dict(state["windows"])
        self._calibration.restore(state["calibration"])


def fit(sequences: list[Array], seed: int = 0) -> tuple[Trees, Calibration]:
    """Train on residual sequences [T, F] (one per replica): the forest and the calibration of its statistic.

    A minute has few ticks, so each is repeated with noise of a third of the normal scale: that widens the normal region to what
    a longer recording would have shown. The calibration sample is not the one that grew the trees.
    """
    from sklearn.ensemble import IsolationForest

    rng = np.random.default_rng(seed)
    windows = [s[max(0, t - WINDOW + 1) : t + 1] for s in sequences for t in range(WARM_UP - 1, len(s))]

    def noisy(copies: int) -> Array:
        # Noise on the residuals, not on the features: what moves together in normal ticks still does.
        return np.array([window_features(w + rng.normal(0, NOISE, w.shape)) for w in windows for _ in range(copies)])

    forest = IsolationForest(n_estimators=64, max_samples=min(256, 4 * len(windows)), random_state=seed).fit(noisy(4))
    trees = Trees.of(forest)
    return trees, Calibration.fit(trees.statistic(noisy(1)))

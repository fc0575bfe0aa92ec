"""Isolation Forest over load-conditioned residuals: is this combination of signals easy to tell from normal ones?

Statistic: s = 2^(-E[path length] / c(n)) over the trees (Liu, Ting, Zhou 2008), of a window: the residuals of this tick,
their mean over 4 ticks, the largest and the root mean square. Score: calibrated tail of s on training ticks.
A false alarm costs an entry in the evidence of a finding, never a finding by itself. Trained with scikit-learn, scored on
flattened trees in numpy (scikit-learn's own `score_samples` takes milliseconds for ten rows, this takes a fraction of one).
Memory: 64 trees of at most 127 nodes, 4 rows of residuals per replica.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.calibration import Calibration
from detectors.features import NAMES
from detectors.members.base import Array, Verdict, strongest
from detectors.observe import Observation

WINDOW = 4
WARM_UP = 3
MIN_KNOWN = 3  # features that must be known for a judgement


class Trees:
    """A fitted `sklearn.ensemble.IsolationForest` as arrays [trees, nodes], which score all rows and trees at once."""

    def __init__(self, forest: Any) -> None:
        trees = [estimator.tree_ for estimator in forest.estimators_]
        most = max(tree.node_count for tree in trees)
        shape = (len(trees), most)
        self.left, self.feature = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.right, self.length = np.zeros(shape, np.int64), np.zeros(shape)
        self.threshold = np.full(shape, np.inf)
        self.depth = max(tree.max_depth for tree in trees)
        for k, tree in enumerate(trees):
            n = tree.node_count
            leaf = tree.children_left < 0
            nodes = np.arange(n)
            self.left[k, :n] = np.where(leaf, nodes, tree.children_left)
            self.right[k, :n] = np.where(leaf, nodes, tree.children_right)
            self.feature[k, :n] = np.where(leaf, 0, tree.feature)
            self.threshold[k, :n] = np.where(leaf, np.inf, tree.threshold)
            depth = np.zeros(n)
            for node in range(n):  # children come after their parents
                if not leaf[node]:
                    depth[tree.children_left[node]] = depth[tree.children_right[node]] = depth[node] + 1
            self.length[k, :n] = depth + average_path(tree.n_node_samples.astype(np.float64))
        self.normal = average_path(np.array([float(forest.max_samples_)]))[0]

    def statistic(self, rows: Array) -> Array:
        """s [n] in 0..1 of rows [n, features]; larger is easier to isolate."""
        x = rows.astype(np.float32).astype(np.float64)  # scikit-learn compares in single precision
        k = np.arange(self.left.shape[0])
        node = np.zeros((len(x), len(k)), np.int64)
        row = np.arange(len(x))[:, None]
        for _ in range(self.depth):
            goes_left = x[row, self.feature[k, node]] <= self.threshold[k, node]
            node = np.where(goes_left, self.left[k, node], self.right[k, node])
        found: Array = 2.0 ** (-self.length[k, node].mean(axis=1) / self.normal)
        return found


def average_path(n: Array) -> Array:
    """c(n): mean path length of an unsuccessful search in a binary search tree of n samples."""
    harmonic = np.log(np.maximum(n - 1, 1)) + np.euler_gamma
    return np.where(n > 2, 2 * harmonic - 2 * (n - 1) / np.maximum(n, 1), np.where(n == 2, 1.0, 0.0))


def window_features(window: Array) -> Array:
    """Features [2F + 2] of residuals [w, F], the newest last; unknown counts as expected."""
    known = np.nan_to_num(window)
    now = known[-1]
    return np.concatenate([now, known.mean(axis=0), [np.abs(now).max(), np.sqrt((now * now).mean())]])


class IsolationForestMember:
    """The detector `isolation_forest`."""

    name = "isolation_forest"

    def __init__(self, forest: Any, calibration: Calibration) -> None:
        self._trees, self._calibration = Trees(forest), calibration
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
            scores[ready] = self._calibration.score(self._trees.statistic(np.array(rows)))
        return Verdict(names, scores, [strongest(NAMES, row) for row in seen.residuals])

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {"windows": self._windows}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._windows = dict(state["windows"])


def fit(sequences: list[Array], seed: int = 0) -> tuple[Any, Calibration]:
    """Train on residual sequences [T, F] (one per replica): the forest and the calibration of its statistic.

    A minute has few ticks, so each is repeated with noise of a third of the normal scale: that widens the normal region to what
    a longer recording would have shown. The calibration sample is not the one that grew the trees.
    """
    from sklearn.ensemble import IsolationForest

    rng = np.random.default_rng(seed)
    rows = np.array(
        [window_features(s[max(0, t - WINDOW + 1) : t + 1]) for s in sequences for t in range(WARM_UP - 1, len(s))],
        dtype=np.float64,
    )

    def noisy(copies: int) -> Array:
        again = np.repeat(rows, copies, axis=0)
        return again + rng.normal(0, 0.35, again.shape)

    forest = IsolationForest(n_estimators=64, max_samples=min(256, 4 * len(rows)), random_state=seed).fit(noisy(4))
    return forest, Calibration.fit(Trees(forest).statistic(noisy(4)))

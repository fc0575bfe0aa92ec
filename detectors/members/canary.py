"""A version against another at the same time: more errors, more wrong answers, slower, or growing memory?

The candidate is the canary (reference: stable), or the freshly promoted stable (reference: the previous version; without
traffic its last five minutes count). Shares are judged by the posterior predictive: with the reference's counts as the prior,
how likely are so many bad answers among the candidate's (beta-binomial tail, exact for small counts)? Over spans of 3, 6, 12 and
20 ticks; a difference counts from p <= 1e-4 *and* a practical size. Slow: infer seconds per batch size, every one of the last 2
ticks three times (or of the last 4 one and a half times) the reference and `slow_seconds` more. Leak: memory grows steadily over
12 ticks (r2 >= 0.9, second half as fast as the first) by `leak_share` and 6 MB, and the reference's by less than a third.
A false alarm costs a rollback: hence both significance and size. Memory: 20 rows per version, 20 sizes per replica.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betaln, gammaln

from detectors.calibration import FLOOR
from detectors.members.base import Array, Verdict
from detectors.observe import Observation
from detectors.settings import DetectSettings

SPANS = (3, 6, 12, 20)
KEPT = 20
REFERENCE_TICKS = 300
FORGET = 0.995
ALPHA = 1e-4
MIN_BAD = 4
LEAK_TICKS, LEAK_SETTLE, LEAK_BYTES = 12, 6, 6e6


class Comparison(NamedTuple):
    """How a version differs for the worse: `what` is errors, wrong, slow or leak; `p` its tail probability."""

    version: int
    reference: int
    what: str
    observed: float
    expected: float
    p: float
    window: float


class CanaryMember:
    """The detector `canary`; `found` holds the differences of the last tick that count."""

    name = "canary"

    def __init__(self, settings: DetectSettings) -> None:
        self.found: list[Comparison] = []
        self._settings = settings
        # version -> rows [tick, answered, errors, right, wrong, requests, infer, batch] of ticks with traffic
        self._rows: dict[int, list[list[float]]] = {}
        self._sizes: dict[str, list[float]] = {}
        # version -> [right, wrong] older than its rows, slowly forgotten
        self._older: dict[int, list[float]] = {}

    def score(self, seen: Observation) -> Verdict:
        """One score per candidate version, as target ``<fleet>_v<version>``; NaN with too few answers."""
        self._learn(seen)
        self.found = []
        targets, scores, top = [], [], []
        for version, reference in candidates(seen):
            tests = [*self._shares(seen.tick, version, reference), *self._slow(seen.tick, version, reference)]
            tests += self._leak(seen, version, reference)
            targets.append(f"{seen.fleet}_v{version}")
            best = min(tests, key=lambda t: t.p, default=None)
            scores.append(math.nan if best is None else 1 - max(best.p, FLOOR))
            top.append([(t.what, round(t.observed - t.expected, 4)) for t in sorted(tests, key=lambda t: t.p)[:3]])
            self.found += [t for t in tests if t.p <= ALPHA]
        self._drift(seen)
        return Verdict(targets, np.array(scores), top)

    def _learn(self, seen: Observation) -> None:
        versions = np.array([-1 if h.version is None else h.version for h in seen.replicas])
        requests, infer, batch = (np.nan_to_num(seen.column(n)) for n in ("requests", "infer_seconds", "batch"))
        for version in seen.versions:
            own = versions == version
            weight = requests[own]
            total = float(weight.sum())
            served = [float((weight * x[own]).sum() / total) if total > 0 else 0.0 for x in (infer, batch)]
            counts = [float(np.nan_to_num(seen.pool(version, name))) for name in ("answered", "errors", "right", "wrong")]
            if total > 0 or any(counts):
                rows = [*self._rows.get(version, []), [float(seen.tick), *counts, total, *served]]
                older = self._older.get(version, [0.0, 0.0])
                for gone in rows[:-KEPT]:
                    older = [older[0] * FORGET + gone[3], older[1] * FORGET + gone[4]]
                self._rows[version], self._older[version] = rows[-KEPT:], older
        self._rows = {v: rows for v, rows in self._rows.items() if seen.tick - rows[-1][0] <= REFERENCE_TICKS}
        names = [h.target for h in seen.replicas]
        sizes = seen.column("memory_bytes")
        self._sizes = {n: [*self._sizes.get(n, []), *([float(s)] if s > 0 else [])] for n, s in zip(names, sizes, strict=True)}
        self._sizes = {n: s[:LEAK_SETTLE] + s[LEAK_SETTLE:][-LEAK_TICKS:] for n, s in self._sizes.items()}

    def _drift(self, seen: Observation) -> None:
        """A version against its own past: the world has changed, or its data, when no other version can be compared."""
        for version in self._rows.keys() - {c.version for c in self.found if c.what == "wrong"}:
            right, wrong = self._older[version]
            bad, count = _counts(self._recent(version, seen.tick, 12), "wrong")
            if right + wrong < 100 or count < 20:
                continue
            share, expected = bad / count, wrong / (right + wrong)
            p = tail(bad, count, wrong + 0.5, right + 0.5)
            if p <= ALPHA / 10 and share - expected >= self._settings.wrong_share:
                self.found.append(Comparison(version, version, "wrong", share, expected, p, 12.0))

    def _recent(self, version: int, tick: int, span: int) -> Array:
        rows = np.array(self._rows.get(version, [])).reshape(-1, 8)
        return rows[rows[:, 0] > tick - span]

    def _reference(self, version: int, tick: int, span: int) -> Array:
        rows = self._recent(version, tick, span)
        return rows if len(rows) else np.array(self._rows.get(version, [])).reshape(-1, 8)

    def _shares(self, tick: int, version: int, reference: int) -> list[Comparison]:
        tests = []
        for what, least in (("errors", self._settings.error_share), ("wrong", self._settings.wrong_share)):
            best: Comparison | None = None
            # The reference's share changes slowly: all of its kept rows make it sure.
            other = self._reference(reference, tick, KEPT)
            for span in SPANS:
                own = self._recent(version, tick, span)
                bad, all_ = _counts(own, what)
                bad_reference, all_reference = _counts(other, what)
                if all_ < 3 or all_reference < 3:
                    continue
                share, expected = bad / all_, bad_reference / all_reference
                p = tail(bad, all_, bad_reference + 0.5, all_reference - bad_reference + 0.5)
                if bad < MIN_BAD or share - expected < least:
                    p = max(p, 10 * ALPHA)  # unusual perhaps, but not bad enough to matter
                if best is None or p < best.p:
                    best = Comparison(version, reference, what, share, expected, p, float(span))
            if best:
                tests.append(best)
        return tests

    def _slow(self, tick: int, version: int, reference: int) -> list[Comparison]:
        own, other = self._recent(version, tick, 6), self._recent(reference, tick, 6)  # latency only at the same time
        own, other = own[own[:, 6] > 0], other[other[:, 6] > 0]
        if len(own) < 2 or not len(other) or own[-1, 0] < tick - 1:
            return []
        base, base_batch = float(np.median(other[:, 6])), float(np.median(np.maximum(other[:, 7], 1)))
        allowed = base * np.maximum(np.maximum(own[:, 7], 1) / base_batch, 1.0)
        more = np.where(own[:, 6] - allowed >= self._settings.slow_seconds, own[:, 6] / allowed, 1.0)
        sure = own[-4:, 5].sum() >= 3 and (more[-2:].min() >= 3 or (len(own) >= 4 and more[-4:].min() >= 1.5))
        ratio = float(np.median(own[-4:, 6] / allowed[-4:]))
        # Not a test statistic of its own: the probability falls with the ratio, and counts only where the rule above holds.
        p = ALPHA / 10 if sure else min(1.0, max(0.01, 1.0 / ratio**3))
        return [Comparison(version, reference, "slow", float(np.median(own[-2:, 6])), base, p, float(min(len(own), 4)))]

    def _leak(self, seen: Observation, version: int, reference: int) -> list[Comparison]:
        growth = {
            v: [steady_growth(self._sizes[h.target]) for h in seen.replicas if h.version == v] for v in (version, reference)
        }
        if not growth[version] or not growth[reference]:
            return []
        worst, size = max(growth[version])
        other = max(max(growth[reference])[0], 0.0)
        if worst <= 0:
            return []
        leaks = worst >= max(self._settings.leak_share * size, LEAK_BYTES) and other < worst / 3
        return [Comparison(version, reference, "leak", worst, other, ALPHA / 2 if leaks else 0.5, float(LEAK_TICKS))]

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {"rows": list(self._rows.items()), "sizes": self._sizes, "older": list(self._older.items())}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._rows, self._sizes, self._older = dict(state["rows"]), dict(state["sizes"]), dict(state["older"])


def candidates(seen: Observation) -> list[tuple[int, int]]:
    """(version, reference) pairs to compare, from the roles of the pools."""
    roles = {h.pool: h.version for h in seen.replicas if h.pool and h.version is not None}
    pairs = [(roles.get("canary"), roles.get("stable")), (roles.get("stable"), roles.get("previous"))]
    return [(a, b) for a, b in pairs if a is not None and b is not None and a != b]


def _counts(rows: Array, what: str) -> tuple[float, float]:
    """Bad ones and all of them."""
    answered, errors, right, wrong = rows.sum(axis=0)[1:5].tolist()
    return (errors, answered) if what == "errors" else (wrong, right + wrong)


def tail(bad: float, count: float, a: float, b: float) -> float:
    """P(X >= bad) of a beta-binomial with `count` trials and prior Beta(a, b)."""
    k, n = np.arange(math.ceil(bad), math.floor(count) + 1), math.floor(count)
    if bad <= 0:
        return 1.0
    logs = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + betaln(k + a, n - k + b) - betaln(a, b)
    return float(min(1.0, np.exp(logs).sum()))


def steady_growth(sizes: list[float]) -> tuple[float, float]:
    """(growth over the window in bytes, size); growth is 0 unless it is steady."""
    window = np.array(sizes[LEAK_SETTLE:])
    if len(window) < LEAK_TICKS:
        return 0.0, 0.0
    x = np.arange(len(window)) - (len(window) - 1) / 2
    slope = float((x * window).sum() / (x * x).sum())
    spread = float(window.var())
    r2 = slope * slope * float((x * x).mean()) / spread if spread > 0 else 0.0
    half = len(window) // 2
    first, second = window[half] - window[0], window[-1] - window[half]
    steady = r2 >= 0.9 and slope > 0 and second >= 0.6 * first
    return (slope * (len(window) - 1) if steady else 0.0), float(window[-1])

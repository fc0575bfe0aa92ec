"""What came of the requests: counted per version for the summary, in memory that does not grow with the run."""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal

import msgspec

Outcome = Literal["ok", "wrong", "error"]
UNKNOWN = "unknown"
"""The version of a request that nobody answered."""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request. Times in unix seconds, `at` in seconds from time zero, `latency` from the intended send time.

    `version` gave the answer; `assigned` is the one that the gateway's weights had chosen, and `attempts` its tries.
    """

    time: float
    at: float
    latency: float
    outcome: Outcome
    version: str = UNKNOWN
    assigned: str | None = None
    attempts: int = 1
    error: str | None = None


class Latencies:
    """A histogram with buckets 1 % apart: percentiles of any number of values to within 1 %."""

    _GROWTH = math.log(1.01)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._total = 0

    def add(self, seconds: float) -> None:
        self._counts[math.ceil(math.log(max(seconds, 1e-6)) / self._GROWTH)] += 1
        self._total += 1

    def percentile(self, p: float) -> float | None:
        """The p-th percentile in seconds; None when there is no value."""
        left = math.ceil(self._total * p / 100)
        for bucket in sorted(self._counts):
            left -= self._counts[bucket]
            if left <= 0:
                return round(math.exp(bucket * self._GROWTH), 6)
        return None


class Tally:
    """Counts and latencies of results, whole and per version."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.errors: Counter[str] = Counter()
        self._latencies = Latencies()
        self._by_version: dict[str, Tally] = {}
        self._first: dict[str, dict[str, float]] = {}

    def add(self, result: Result) -> None:
        self._count(result)
        self._by_version.setdefault(result.version, Tally())._count(result)
        self._notice_first(result)

    def _count(self, result: Result) -> None:
        self.outcomes[result.outcome] += 1
        if result.outcome == "error":
            self.errors[result.error or "unknown"] += 1
        else:
            self._latencies.add(result.latency)

    def _notice_first(self, result: Result) -> None:
        """When a version was first seen to do wrong, by the time the client knew. Failures go to the assigned version."""
        known = result.time + result.latency
        assigned = result.assigned or result.version
        seen = [(result.version, "first_answer")] if result.outcome != "error" else [(assigned, "first_error")]
        if result.outcome == "wrong":
            seen.append((result.version, "first_wrong"))
        if result.attempts > 1:
            seen.append((assigned, "first_retried"))
        for version, what in seen:
            first = self._first.setdefault(version, {})
            first[what] = min(known, first.get(what, math.inf))

    def line(self) -> dict[str, object]:
        """Counts and percentiles (seconds; None where nothing was answered), for logs and the summary."""
        return {
            "ok": self.outcomes["ok"],
            "wrong": self.outcomes["wrong"],
            "error": self.outcomes["error"],
            "p50": self._latencies.percentile(50),
            "p99": self._latencies.percentile(99),
        }

    def lines(self) -> list[dict[str, object]]:
        """One line for everything (version None) and one per version that answered."""
        each = [{"version": version, **tally.line()} for version, tally in sorted(self._by_version.items())]
        return [{"version": None, **self.line()}, *each]

    def summary(self) -> dict[str, object]:
        """The whole run. `error_ratio` is of the requests that came to an end; None when none did."""
        ended = sum(self.outcomes.values())
        versions = sorted(self._by_version.keys() | self._first.keys())
        return {
            "ended": ended,
            "ok": self.outcomes["ok"],
            "wrong": self.outcomes["wrong"],
            "errors": self.outcomes["error"],
            "error_ratio": self.outcomes["error"] / ended if ended else None,
            "error_kinds": dict(self.errors),
            "latency_seconds": self._percentiles(),
            "versions": {version: self._version(version) for version in versions},
        }

    def _percentiles(self) -> dict[str, float | None]:
        return {f"p{p:g}": self._latencies.percentile(p) for p in (50, 90, 95, 99, 99.9)}

    def _version(self, version: str) -> dict[str, object]:
        tally = self._by_version.get(version, Tally())
        first = self._first.get(version, {})
        counts = {key: value for key, value in tally.line().items() if key in ("ok", "wrong", "error")}
        kinds = ("first_answer", "first_error", "first_wrong", "first_retried")
        # A wrong answer now and then is normal for a model; an error or a retry is not.
        bad = min((first[kind] for kind in ("first_error", "first_retried") if kind in first), default=None)
        return {
            **counts,
            "latency_seconds": tally._percentiles(),
            **{kind: first.get(kind) for kind in kinds},
            "first_bad": bad,
        }

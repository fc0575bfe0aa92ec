"""What came of the requests: counted per version for the summary, in memory that does not grow with the run."""

from __future__ import annotations

import math
from collections import Counter
from typing import Literal

import msgspec

from serving_stack.intervals import wilson
from serving_stack.traffic.histogram import Latencies

Outcome = Literal["ok", "wrong", "error"]
_OUTCOMES: tuple[Outcome, ...] = ("ok", "wrong", "error")
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
    adapter: str | None = None
    error: str | None = None


class Tally:
    """Counts and latencies of results, whole and per version."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.errors: Counter[str] = Counter()
        self._latencies = Latencies()
        self._by_version: dict[str, Tally] = {}
        self._by_adapter: dict[str, Counter[Outcome]] = {}
        self._first: dict[str, dict[str, float]] = {}

    def add(self, result: Result) -> None:
        self._count(result)
        if result.version not in self._by_version:
            self._by_version[result.version] = Tally()
        self._by_version[result.version]._count(result)
        if result.adapter is not None:
            self._by_adapter.setdefault(result.adapter, Counter())[result.outcome] += 1
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

    def latencies(self) -> dict[str | None, Latencies]:
        """Of what was answered: all of it under None, and per version."""
        each: dict[str | None, Latencies] = {
            version: tally._latencies for version, tally in sorted(self._by_version.items()) if version != UNKNOWN
        }
        return {None: self._latencies} | each

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
            "accuracy": _accuracy(self.outcomes),
            "versions": {version: self._version(version) for version in versions},
            **(
                {"adapters": {name: _adapter(self._by_adapter[name]) for name in sorted(self._by_adapter)}}
                if self._by_adapter
                else {}
            ),
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
            "accuracy": _accuracy(tally.outcomes),
            "latency_seconds": tally._percentiles(),
            **{kind: first.get(kind) for kind in kinds},
            "first_bad": bad,
        }


def _accuracy(outcomes: Counter[Outcome]) -> dict[str, float] | None:
    """The share of right ones among the answers, with its 95 % interval (Wilson); None without answers."""
    answered = outcomes["ok"] + outcomes["wrong"]
    if not answered:
        return None
    low, high = wilson(outcomes["ok"], answered)
    return {"value": round(outcomes["ok"] / answered, 4), "low": round(low, 4), "high": round(high, 4)}


def _adapter(outcomes: Counter[Outcome]) -> dict[str, object]:
    return {**{outcome: outcomes[outcome] for outcome in _OUTCOMES}, "accuracy": _accuracy(outcomes)}

"""What a run left behind, folded from the topics one record at a time. Pure: no Kafka, no clock, no files."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from trimtab.messages import Decision, Finding, FleetSpec, FleetState, Message, Score, Snapshot

NoteKind = Literal["scenario", "finding", "decision", "state", "release", "process", "demo"]

WINDOW = 5.0
"""Seconds over which plotted rates and percentiles are taken: at 20 requests/s one second is too few for a percentile."""

_NAME = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?$", re.DOTALL)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `events.jsonl`: unix `time`, scenario time `at` (None before the clock starts), and what happened in words."""

    time: float
    at: float | None
    kind: NoteKind
    words: str
    detail: dict[str, object] = {}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One client request: `time` is the unix time it was meant to be sent, `latency` counts from then, in seconds.

    `version` is the one that answered and `assigned` the one the gateway had chosen, None when unknown; more than one of
    `attempts` means that the gateway tried again after a failure.
    """

    time: float
    latency: float
    outcome: Literal["ok", "wrong", "error"]
    version: int | None = None
    assigned: int | None = None
    attempts: int = 1


@dataclass(frozen=True)
class Point:
    """The traffic of one version (None: of no version) as the client saw it around `time`: per second, and seconds."""

    time: float
    version: int | None
    requests: float
    errors: float
    wrong: float
    p50: float | None
    p99: float | None


@dataclass
class Recording:
    """Everything that judge, report and live view look at. `zero` is the unix time at which the scenario clock started."""

    spec: FleetSpec
    zero: float | None = None
    notes: list[Note] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    states: list[FleetState] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    _traffic: _Traffic = field(default_factory=lambda: _Traffic())
    _told: dict[str, str] = field(default_factory=dict)

    def at(self, time: float) -> float | None:
        """Scenario time of a unix time."""
        return None if self.zero is None else time - self.zero

    def begun(self, event: int, planned: float) -> float:
        """Unix time at which event number `event` really happened; from its `planned` scenario time when nobody noted it."""
        for note in self.notes:
            if note.kind == "scenario" and note.detail.get("event") == event and note.detail.get("edge") == "begin":
                return note.time
        return (self.zero or 0.0) + planned

    def note(self, time: float, kind: NoteKind, words: str, **detail: object) -> Note:
        """Adds a line to the events of the run."""
        note = Note(time=time, at=self.at(time), kind=kind, words=words, detail=detail)
        self.notes.append(note)
        return note

    def _is_news(self, id: str, state: str) -> bool:
        """Whether a finding or decision is not just its last message again."""
        news = self._told.get(id) != state
        self._told[id] = state
        return news

    def add(self, message: Message) -> None:
        """Folds one message in; messages of other fleets are left out."""
        if getattr(message, "fleet", self.spec.fleet) != self.spec.fleet:
            return
        match message:
            case Decision():
                self.decisions.append(message)
                if self._is_news(message.id, message.outcome):
                    self.note(message.time, "decision", decision_words(message), id=message.id, action=message.action)
            case Finding():
                self.findings.append(message)
                if self._is_news(message.id, message.state):
                    detail = {"id": message.id, "finding": message.kind, "state": message.state}
                    self.note(message.time, "finding", finding_words(message), **detail)
            case FleetState():
                before = state_words(self.states[-1]) if self.states else None
                self.states.append(message)
                if (words := state_words(message)) != before:
                    self.note(message.time, "state", words)
            case FleetSpec():
                if message.version != self.spec.version:
                    self.note(message.time, "release", f"the wanted version is now {message.version}", version=message.version)
                self.spec = message
            case Score():
                self.scores.append(message)
            case Snapshot(role="app", up=True):
                self.points.extend(self._traffic.points(message))
            case _:
                pass


def direction(decision: Decision) -> Literal["up", "down"] | None:
    """Whether a scale decision goes up or down, None when its numbers do not say."""
    before, after = decision.from_.get("replicas"), decision.to.get("replicas")
    if not isinstance(before, int | float) or not isinstance(after, int | float) or before == after:
        return None
    return "up" if after > before else "down"


def decision_words(decision: Decision) -> str:
    """A decision in one line: what, on whom, from and to, how it ended, and why."""
    whom = f" {decision.target}" if decision.target else f" version {decision.version}" if decision.version is not None else ""
    change = f": {_values(decision.from_)} → {_values(decision.to)}" if decision.to else ""
    ended = "" if decision.outcome == "applied" else f" ({decision.outcome})"
    dry = " (dry run)" if decision.dry_run else ""
    return f"{decision.action.replace('_', ' ')}{whom}{change}{ended}{dry}. {decision.reason}"


def _values(values: dict[str, object]) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in values.items()) or "–"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k}:{v}" for k, v in value.items())
    return str(value)


def finding_words(finding: Finding) -> str:
    """A finding in one line: kind, whom, state, and its summary."""
    whom = f" on {finding.target}" if finding.target else f" in version {finding.version}" if finding.version is not None else ""
    over = " is resolved" if finding.state == "resolved" else ""
    return f"{finding.kind.replace('_', ' ')}{whom}{over}. {finding.summary}"


def state_words(state: FleetState) -> str:
    """The pools with their replicas and weights in one line; equal for states that differ in nothing but time."""
    parts = []
    for pool in state.pools:
        ready = sum(replica.phase == "ready" for replica in pool.replicas)
        sick = "".join(f", {r.name} {r.phase}" for r in pool.replicas if r.phase in ("failed", "quarantined"))
        parts.append(f"version {pool.version} ({pool.role}) {ready}/{pool.wanted} ready, {pool.weight}%{sick}")
    return "; ".join(parts) or "no pools"


Labels = dict[str, str]


def parse_series(series: str) -> tuple[str, Labels]:
    """``name{label="value",...}`` as name and labels; what is not of this form has no labels."""
    match = _NAME.match(series)
    if match is None:
        return series, {}
    return match[1], {name: re.sub(r"\\(.)", r"\1", value) for name, value in _LABEL.findall(match[2] or "")}


def percentile(buckets: dict[float, float], share: float) -> float | None:
    """The percentile from cumulative histogram counts per upper bound; None when it is empty; the last finite bound at most."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if not total > 0:
        return None
    below, lower = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= share * total:
            if bound == float("inf"):
                return lower
            inside = buckets[bound] - below
            return lower + (bound - lower) * ((share * total - below) / inside if inside > 0 else 1.0)
        below, lower = buckets[bound], bound
    return lower


def _bound(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass
class _Traffic:
    """Counters of the traffic generator, kept over `WINDOW` seconds to take differences."""

    window: deque[tuple[float, dict[str, float]]] = field(default_factory=deque)
    parsed: dict[str, tuple[str, Labels]] = field(default_factory=dict)

    def points(self, snapshot: Snapshot) -> list[Point]:
        now = {
            name: value for name, value in snapshot.series.items() if value is not None and name.startswith("trimtab_traffic_")
        }
        while self.window and self.window[0][0] < snapshot.time - WINDOW - 0.5:
            self.window.popleft()
        if self.window and any(value < self.window[-1][1].get(name, 0.0) for name, value in now.items() if self._counts(name)):
            self.window.clear()
        self.window.append((snapshot.time, now))
        start, before = self.window[0]
        if snapshot.time <= start:
            return []
        return self._differences(before, now, snapshot.time, snapshot.time - start)

    def _parse(self, series: str) -> tuple[str, Labels]:
        if series not in self.parsed:
            self.parsed[series] = parse_series(series)
        return self.parsed[series]

    def _counts(self, series: str) -> bool:
        return self._parse(series)[0] in ("trimtab_traffic_requests_total", "trimtab_traffic_latency_seconds_bucket")

    def _differences(self, before: dict[str, float], now: dict[str, float], time: float, took: float) -> list[Point]:
        outcomes: dict[int | None, dict[str, float]] = {}
        buckets: dict[int | None, dict[float, float]] = {}
        for series, value in now.items():
            name, labels = self._parse(series)
            version = int(labels["version"]) if labels.get("version", "").isdigit() else None
            more = value - before.get(series, 0.0)
            if name == "trimtab_traffic_requests_total":
                of = outcomes.setdefault(version, {})
                of[labels.get("outcome", "")] = of.get(labels.get("outcome", ""), 0.0) + more
            elif name == "trimtab_traffic_latency_seconds_bucket":
                bound = _bound(labels.get("le", ""))
                if bound is not None:
                    le = buckets.setdefault(version, {})
                    le[bound] = le.get(bound, 0.0) + more
        return [
            Point(
                time=time,
                version=version,
                requests=sum(counts.values()) / took,
                errors=counts.get("error", 0.0) / took,
                wrong=counts.get("wrong", 0.0) / took,
                p50=percentile(buckets.get(version, {}), 0.5),
                p99=percentile(buckets.get(version, {}), 0.99),
            )
            for version, counts in sorted(outcomes.items(), key=lambda item: (item[0] is None, item[0] or 0))
            if sum(counts.values()) > 0
        ]

"""What the window's plots show: shares of traffic, replicas in traffic, and what clients got, per version. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trimtab.messages import FleetState, Snapshot

_SPAN = 3.0
"""Seconds over which rates are taken."""

_ANSWERS = re.compile(r'^trimtab_traffic_requests_total\{outcome="(?P<outcome>\w+)",version="(?P<version>[^"]*)"\}$')

Points = list[tuple[float, float | None]]


@dataclass(frozen=True)
class Curve:
    """One panel: a line per version. Values are in `unit`; a `step` holds until the next; None: not known, the line breaks."""

    title: str
    unit: str
    step: bool
    lines: Sequence[tuple[str, Points]]


def curves(states: Sequence[FleetState], snapshots: Sequence[Snapshot], start: float, end: float) -> list[Curve]:
    """The panels that have something to show between two unix times."""
    seen = [state for state in states if start <= state.time <= end]
    made = [
        Curve("share of traffic", "%", True, _by_version(seen, "weight")),
        Curve("replicas in traffic", "", True, _by_version(seen, "in_traffic")),
        Curve("failed or wrong answers to clients", "/s", False, _bad_answers(snapshots, start, end)),
    ]
    return [curve for curve in made if any(value is not None for _, points in curve.lines for _, value in points)]


def _by_version(states: Sequence[FleetState], what: str) -> list[tuple[str, Points]]:
    versions = sorted({pool.version for state in states for pool in state.pools})
    lines = []
    for version in versions:
        points: Points = []
        for state in states:
            pools = [pool for pool in state.pools if pool.version == version]
            weight, serving = sum(p.weight for p in pools), sum(r.in_traffic for p in pools for r in p.replicas)
            points.append((state.time, None if not pools else float(weight if what == "weight" else serving)))
        lines.append((f"version {version}", points))
    return lines


def _bad_answers(snapshots: Iterable[Snapshot], start: float, end: float) -> list[tuple[str, Points]]:
    """Of versions that answered anybody in the window."""
    bad: dict[str, Points] = {}
    all_: dict[str, set[float]] = {}
    for snapshot in snapshots:
        if snapshot.role != "app" or not start - 2 * _SPAN <= snapshot.time <= end:
            continue
        seen: dict[str, tuple[float, float]] = {}
        for series, value in snapshot.series.items():
            match = _ANSWERS.match(series)
            if match and value is not None:
                wrong, total = seen.get(match["version"], (0.0, 0.0))
                seen[match["version"]] = (wrong + (value if match["outcome"] != "ok" else 0.0), total + value)
        for version in seen.keys() | bad.keys():
            bad.setdefault(version, []).append((snapshot.time, seen[version][0] if version in seen else None))
            all_.setdefault(version, set()).update({seen[version][1]} if version in seen else ())
    named = {version: f"version {version}" if version.isdigit() else "no version" for version in bad}
    return [(named[v], _rates(points, start)) for v, points in sorted(bad.items()) if len(all_[v]) > 1]


def _rates(points: Points, start: float) -> Points:
    """Increases per second over the last seconds of a counter; not known where it fell (a restart) or was not seen."""
    rates: Points = []
    recent: deque[tuple[float, float]] = deque()
    for time, value in points:
        while recent and recent[0][0] < time - _SPAN:
            recent.popleft()
        rate = None
        if value is not None:
            if recent and value >= recent[-1][1]:
                rate = (value - recent[0][1]) / (time - recent[0][0])
            elif recent:
                recent.clear()
            recent.append((time, value))
        if time >= start:
            rates.append((time, rate))
    return rates

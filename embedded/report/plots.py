"""From a recording to panels: arrivals, latency, errors, replicas, weights and scores over scenario time. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from embedded.recording import WINDOW, Point, Recording, Request
from embedded.report.svg import Panel, Series
from trimtab.messages import FleetState

Values = Callable[[Point], float | None]


def client_points(requests: Sequence[Request], start: float, end: float) -> list[Point]:
    """The client's own requests as points each second over `WINDOW` seconds: exact, and whole in a telemetry outage.

    A request without an answer counts for the version it was sent to.
    """
    ordered = sorted(requests, key=lambda r: r.time)
    versions = sorted({_version(r) for r in ordered}, key=lambda v: (v is None, v or 0))
    window: deque[Request] = deque()
    coming = iter(ordered)
    following = next(coming, None)
    points: list[Point] = []
    for second in range(math.ceil(start), math.floor(end) + 1):
        while following is not None and following.time < second:
            window.append(following)
            following = next(coming, None)
        while window and window[0].time < second - WINDOW:
            window.popleft()
        within = {version: [r for r in window if _version(r) == version] for version in versions}
        points.extend(_point(float(second), version, of) for version, of in within.items() if of)
    return points


def _version(request: Request) -> int | None:
    return request.version if request.version is not None else request.assigned


def _point(time: float, version: int | None, of: list[Request]) -> Point:
    latencies = sorted(r.latency for r in of if r.outcome != "error")
    return Point(
        time=time,
        version=version,
        requests=len(of) / WINDOW,
        errors=sum(r.outcome == "error" for r in of) / WINDOW,
        wrong=sum(r.outcome == "wrong" for r in of) / WINDOW,
        p50=latencies[math.ceil(0.5 * len(latencies)) - 1] if latencies else None,
        p99=latencies[math.ceil(0.99 * len(latencies)) - 1] if latencies else None,
    )


def panels(recording: Recording, points: Sequence[Point], zero: float) -> list[Panel]:
    """All panels, top to bottom, in scenario time."""
    shown = sorted({p.version for p in points}, key=lambda v: (v is None, v or 0))
    scale = _Scale(zero, points)
    states = recording.states
    versions = sorted({pool.version for state in states for pool in state.pools})
    slo = recording.spec.slo
    latency_top = min(max((p.p99 or 0.0 for p in points), default=0.0) * 1.1, slo.p99_seconds * 4)
    return [
        Panel(
            "requests per second",
            scale.series([(_named(v), _color(v), v, lambda p: p.requests) for v in shown]),
            *_nice(max((p.requests for p in points), default=0.0), "{:g}".format),
            height=100,
        ),
        Panel(
            "latency from the intended send time, p99 (thin: p50)",
            [
                *scale.series([(f"{_named(v)} p50", f"{_color(v)} thin", v, lambda p: p.p50) for v in shown], legend=False),
                *scale.series([(_named(v), _color(v), v, lambda p: p.p99) for v in shown]),
            ],
            *_nice(max(latency_top, slo.p99_seconds * 1.15), _milliseconds),
            height=130,
            limit=(slo.p99_seconds, f"SLO {_milliseconds(slo.p99_seconds)}"),
            say=lambda seconds: f"{seconds * 1000:.0f} ms",
        ),
        Panel(
            "errors per second (thin: wrong answers)",
            [
                *scale.series([(f"{_named(v)} wrong", f"{_color(v)} thin", v, lambda p: p.wrong) for v in shown], legend=False),
                *scale.series([(f"{_named(v)} errors", _color(v), v, lambda p: p.errors) for v in shown]),
            ],
            *_nice(max((max(p.errors, p.wrong) for p in points), default=0.0) or 1.0, "{:g}".format),
            height=70,
        ),
        _stacked("replicas in traffic", states, versions, zero, _in_traffic, None),
        _stacked("traffic weights", states, versions, zero, _weight, 100.0),
        _scores(recording, zero),
    ]


class _Scale:
    """Turns points into series in scenario time."""

    def __init__(self, zero: float, points: Sequence[Point]) -> None:
        self._zero, self._points = zero, points

    def series(self, wanted: list[tuple[str, str, int | None, Values]], *, legend: bool = True) -> list[Series]:
        return [
            Series(label, style, [(p.time - self._zero, of(p)) for p in self._points if p.version == version], legend=legend)
            for label, style, version, of in wanted
        ]


def _named(version: int | None) -> str:
    return "no answer" if version is None else f"version {version}"


def _color(version: int | None) -> str:
    return "c-none" if version is None else f"c{version % 6}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:g} ms"


def _nice(highest: float, label: Callable[[float], str]) -> tuple[float, list[tuple[float, str]]]:
    """A round upper edge at or above `highest`, and three to six labelled values from 0."""
    highest = highest if highest > 0 else 1.0
    magnitude = 10.0 ** math.floor(math.log10(highest))
    step = next(s * magnitude for s in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0) if highest / (s * magnitude) <= 5)
    count = math.ceil(highest / step - 1e-9)
    return step * count, [(round(step * k, 9), label(round(step * k, 9))) for k in range(count + 1)]


def _in_traffic(state: FleetState, version: int) -> float:
    return float(
        sum(r.in_traffic and r.phase == "ready" for pool in state.pools if pool.version == version for r in pool.replicas)
    )


def _weight(state: FleetState, version: int) -> float:
    return float(sum(pool.weight for pool in state.pools if pool.version == version))


def _stacked(
    title: str,
    states: Sequence[FleetState],
    versions: Sequence[int],
    zero: float,
    of: Callable[[FleetState, int], float],
    top: float | None,
) -> Panel:
    base = [0.0] * len(states)
    series: list[Series] = []
    for version in versions:
        upper = [low + of(state, version) for low, state in zip(base, states, strict=True)]
        points = [(state.time - zero, value) for state, value in zip(states, upper, strict=True)]
        series.append(Series(_named(version), _color(version), points, "band", base))
        base = upper
    if top is None:
        edge = max(1, *(math.ceil(value) for value in [*base, 1.0]))
        ticks = [(float(k), str(k)) for k in range(0, edge + 1, max(1, edge // 4))]
        return Panel(title, series, float(edge), ticks, height=80)
    return Panel(title, series, top, [(0.0, "0%"), (50.0, "50%"), (100.0, "100%")], height=60, say="{:.0f}%".format)


NINES = 4.0
"""A score is drawn by its nines: 0.9 is one, 0.999 three; equal heights are equal evidence. A full row is this many."""
_ROW = 22


def nines(score: float) -> float:
    """How many nines a score has, `NINES` at most."""
    return min(-math.log10(max(1.0 - score, 1e-12)), NINES) if score > 0 else 0.0


def _scores(recording: Recording, zero: float) -> Panel:
    """One row per detector: how unusual it found the most unusual target in each second."""
    highest: dict[str, dict[int, float]] = {}
    for score in recording.scores:
        by_second = highest.setdefault(score.detector, {})
        second = math.floor(score.time)
        by_second[second] = max(score.score, by_second.get(second, 0.0))
    series: list[Series] = []
    ticks: list[tuple[float, str]] = []
    for row, (detector, values) in enumerate(sorted(highest.items(), reverse=True)):
        points = [(t - zero, row + _SHARE * nines(v) / NINES) for t, v in sorted(values.items())]
        name = detector.replace("_", " ")
        series.append(Series(name, "score", points, "band", [float(row)] * len(points), legend=False))
        ticks.append((float(row), name))
    title = "scores: how unusual the most unusual target looks to each detector (a full row: 0.9999)"
    rows = max(len(series), 1)
    return Panel(title, series, float(rows), ticks, height=_ROW * rows, say=_said)


_SHARE = 0.85
"""The share of a row that a full score fills, so that rows stay apart."""


def _said(height: float) -> str:
    return f"{1 - 10 ** (-height / _SHARE * NINES):.4f}"

"""The chart of an incident: lanes from scrape to outcome with the chain drawn through them, and panels below, on one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element

from dashboards.incident.chain import LANES, Lane, Step
from dashboards.incident.curves import Curve, Points
from dashboards.incident.story import Story
from trimtab.svg import Axis, el

WIDTH = 1200
_LEFT, _RIGHT = 150.0, WIDTH - 20.0
_ROW, _PAD, _APART = 24.0, 10.0, 23.0
_PANEL, _BETWEEN = 74.0, 40.0
_GAP_SECONDS = 5.0
"""A line is broken where nothing was known for longer than this."""


def chart(story: Story) -> Element:
    """The whole SVG. Times on the axis count from the moment the incident began."""
    zero = story.incident.opened
    axis = Axis(story.start - zero, story.end - zero, _LEFT, _RIGHT)
    rows = _rows(story.steps, axis, zero)
    tops: dict[Lane, float] = {}
    y = 34.0
    for lane in LANES:
        tops[lane] = y
        y += 2 * _PAD + _ROW * (1 + max((rows[s.number] for s in story.steps if s.lane == lane), default=0))
    places = {s.number: (axis.x(s.time - zero), tops[s.lane] + _PAD + _ROW * (rows[s.number] + 0.5)) for s in story.steps}
    lanes_end = y
    panels_at = [lanes_end + _BETWEEN + number * (_PANEL + _BETWEEN) for number in range(len(story.curves))]
    height = (panels_at[-1] + _PANEL if panels_at else lanes_end) + 14
    return el(
        "svg",
        *_time(axis, height - 14),
        *_lanes(tops, lanes_end),
        *_bars(story.steps, places, axis, zero),
        *_arrows(story.steps, places),
        *[_mark(step, *places[step.number]) for step in story.steps],
        *[_panel(curve, axis, zero, at) for curve, at in zip(story.curves, panels_at, strict=True)],
        viewBox=f"0 0 {WIDTH} {height:.0f}",
        role="img",
        aria_label=f"What happened around {story.title}, on one time axis",
    )


def _rows(steps: Sequence[Step], axis: Axis, zero: float) -> dict[int, int]:
    """Marks that would cover each other go below one another."""
    rows: dict[int, int] = {}
    for lane in LANES:
        ends: list[float] = []
        for step in (step for step in steps if step.lane == lane):
            x = axis.x(step.time - zero)
            row = next((number for number, end in enumerate(ends) if x >= end), len(ends))
            ends[row : row + 1] = [x + _APART]
            rows[step.number] = row
    return rows


def _time(axis: Axis, low: float) -> list[Element]:
    drawn = []
    for tick in axis.ticks():
        drawn.append(el("line", x1=axis.x(tick), x2=axis.x(tick), y1=26, y2=low, class_="grid"))
        drawn.append(el("text", _ago(tick), x=axis.x(tick), y=17, class_="tick mid"))
    begin = axis.x(0.0)
    return [*drawn, el("line", x1=begin, x2=begin, y1=22, y2=low, class_="begin")]


def _ago(seconds: float) -> str:
    if abs(seconds) < 120:
        return f"{seconds:+.0f} s" if seconds else "begin"
    return f"{seconds / 60:+.3g} min" if abs(seconds) < 7200 else f"{seconds / 3600:+.3g} h"


def _lanes(tops: Mapping[Lane, float], end: float) -> list[Element]:
    drawn = []
    edges = [*tops.values(), end]
    for number, (lane, (top, low)) in enumerate(zip(tops, pairwise(edges), strict=True)):
        shade = "lane odd" if number % 2 else "lane"
        drawn.append(el("rect", x=0, y=top, width=WIDTH, height=low - top, class_=shade))
        drawn.append(el("text", lane, x=14, y=(top + low) / 2 + 4, class_="title"))
    return drawn


def _bars(steps: Sequence[Step], places: dict[int, tuple[float, float]], axis: Axis, zero: float) -> list[Element]:
    """How long each finding was said."""
    return [
        el("line", x1=places[step.number][0], x2=axis.x(step.until - zero), y1=y, y2=y, class_="said")
        for step in steps
        for y in [places[step.number][1]]
        if step.until is not None
    ]


def _arrows(steps: Sequence[Step], places: dict[int, tuple[float, float]]) -> list[Element]:
    drawn = []
    for step in steps:
        x, y = places[step.number]
        # The nearest cause is enough: what led to that is drawn there.
        for cause in step.causes[:1]:
            at, above = places[cause]
            bend = max(abs(y - above) / 2, 14.0)
            drawn.append(
                el(
                    "path",
                    d=f"M{at:.1f} {above:.1f}C{at:.1f} {above + bend:.1f} {x:.1f} {y - bend:.1f} {x:.1f} {y:.1f}",
                    class_="led",
                )
            )
    return drawn


def _mark(step: Step, x: float, y: float) -> Element:
    return el(
        "a",
        el("title", f"{step.what}. {' '.join(step.details)}"),
        el("circle", cx=x, cy=y, r=10.0, class_=step.tone),
        el("text", str(step.number), x=x, y=y + 3.8, class_="number"),
        href=f"#step-{step.number}",
    )


def _panel(curve: Curve, axis: Axis, zero: float, top: float) -> Element:
    highest = max((value for _, points in curve.lines for _, value in points if value is not None), default=0.0)
    limit = _round_up(highest)
    low = top + _PANEL

    def place(time: float, value: float) -> tuple[float, float]:
        return axis.x(time - zero), low - value / limit * _PANEL

    group = el("g", el("rect", x=axis.left, y=top, width=axis.right - axis.left, height=_PANEL, class_="plot"))
    for value in (0.0, limit):
        words = f"{value:g} {curve.unit}".strip() if curve.unit != "/s" else f"{value:g}/s"
        group.append(el("text", words, x=axis.left - 8, y=low - value / limit * _PANEL + 4, class_="tick end"))
    group.append(el("text", curve.title, x=axis.left, y=top - 8, class_="title"))
    x = axis.right
    for name, points in reversed(curve.lines):
        colour = _colour(name)
        for piece in _pieces(points):
            group.append(el("path", d=_path([place(*point) for point in piece], curve.step), class_=f"line {colour}"))
        x -= len(name) * 6.4 + 6
        group.append(el("text", name, x=x, y=top - 8, class_="tick"))
        group.append(el("line", x1=x - 18, x2=x - 5, y1=top - 12, y2=top - 12, class_=f"key {colour}"))
        x -= 30
    return group


def _colour(name: str) -> str:
    """A version has the same colour in all panels."""
    digits = "".join(letter for letter in name if letter in "0123456789")
    return f"c{int(digits[-3:]) % 6}" if digits else "none"


def _pieces(points: Points) -> list[list[tuple[float, float]]]:
    """The runs of known values without a gap."""
    pieces: list[list[tuple[float, float]]] = []
    last: float | None = None
    for time, value in points:
        if value is not None:
            if last is None or time - last > _GAP_SECONDS:
                pieces.append([])
            pieces[-1].append((time, value))
        last = None if value is None else time
    return pieces


def _path(points: Sequence[tuple[float, float]], stepped: bool) -> str:
    words = []
    for i, (x, y) in enumerate(points):
        if stepped and i:
            words.append(f"{x:.1f} {points[i - 1][1]:.1f}")
        words.append(f"{x:.1f} {y:.1f}")
    if len(points) == 1:
        words.append(f"{points[0][0] + 1.5:.1f} {points[0][1]:.1f}")
    return "M" + "L".join(words)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    if value <= 1:
        return 1.0
    size = 1.0
    while size * 10 < value:
        size *= 10
    return next(size * step for step in (1, 2, 5, 10) if value <= size * step)

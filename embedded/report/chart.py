"""The one big chart: all panels on one time axis, under the numbered marks of findings and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from embedded import timeline
from embedded.recording import Recording
from embedded.report.marks import Mark
from embedded.report.svg import Panel, draw
from embedded.scenario import Scenario
from trimtab.svg import Axis, el

WIDTH = 1200
_LEFT, _RIGHT = 104, 1184
_LANE = 21
_BETWEEN = 34


def axis_of(scenario: Scenario, end: float) -> Axis:
    """The time axis: from the start of the warm-up to `end`, in scenario time."""
    return Axis(-scenario.warmup, max(end, 1.0), _LEFT, _RIGHT)


def chart(scenario: Scenario, recording: Recording, panels: Sequence[Panel], marks: Sequence[Mark], axis: Axis) -> Element:
    """The chart as one SVG."""
    places = lanes([axis.x(mark.at) for mark in marks])
    top = 46 + _LANE * (max(places, default=0) + 1)
    tops: list[float] = []
    y = top + 34.0
    for panel in panels:
        tops.append(y)
        y += panel.height + _BETWEEN
    bottom = y - _BETWEEN
    svg = el("svg", viewBox=f"0 0 {WIDTH} {bottom + 40:.0f}", role="img", aria_label="The run over time")
    drawn = [draw(panel, axis, at) for panel, at in zip(panels, tops, strict=True)]
    svg.extend(_events(scenario, recording, axis, top, bottom))
    svg.extend(drawn)
    svg.extend(_time(axis, bottom))
    svg.extend(_mark(mark, axis, 46 + _LANE * lane, bottom) for mark, lane in zip(marks, places, strict=True))
    svg.append(el("line", id="cursor", x1=0, x2=0, y1=top, y2=bottom))
    return svg


def lanes(xs: Sequence[float]) -> list[int]:
    """A row for each mark, from the top, so that marks in order of time do not cover each other."""
    ends: list[float] = []
    found: list[int] = []
    for x in xs:
        lane = next((i for i, end in enumerate(ends) if x - end >= 22), len(ends))
        if lane == len(ends):
            ends.append(x)
        ends[lane] = x
        found.append(lane)
    return found


def _events(scenario: Scenario, recording: Recording, axis: Axis, top: float, bottom: float) -> list[Element]:
    zero = recording.zero or 0.0
    shapes = [_shade(axis, axis.start, 0.0, top, bottom, "shade warmup")]
    labels = [_label("warm-up and training", (axis.x(axis.start) + axis.x(0.0)) / 2, 14)]
    free = [axis.x(0.0), axis.x(0.0)]
    for i, event in enumerate(scenario.events):
        at = recording.begun(i, event.at) - zero
        if at > axis.end:
            continue
        if event.lasts:
            shapes.append(_shade(axis, at, at + event.lasts, top, bottom, "shade"))
        x = axis.x(at)
        shapes.append(el("line", x1=x, x2=x, y1=20, y2=bottom, class_="begin"))
        text = _short(scenario, i)
        row = 0 if x >= free[0] else 1
        free[row] = x + len(text) * 6.2 + 10
        labels.append(el("text", el("title", timeline.describe(event)), class_="tick", x=x + 3, y=14 + 15 * row))
        labels[-1][0].tail = text
    return [*shapes, *labels]


def _short(scenario: Scenario, index: int) -> str:
    event = scenario.events[index]
    if event.surge is not None:
        return f"surge ×{event.surge.factor:g}"
    if event.release is not None:
        return f"release v{event.release.version}" + (f" ({event.release.fault.kind})" if event.release.fault else "")
    if event.replica_fault is not None:
        return f"replica fault ({event.replica_fault.kind})"
    return "telemetry outage"


def _label(text: str, x: float, y: float) -> Element:
    return el("text", text, x=x, y=y, class_="tick mid")


def _shade(axis: Axis, start: float, end: float, top: float, bottom: float, class_: str) -> Element:
    return el("rect", x=axis.x(start), y=top, width=axis.x(end) - axis.x(start), height=bottom - top, class_=class_)


def _time(axis: Axis, bottom: float) -> list[Element]:
    ticks = [_label(f"{tick:g}", axis.x(tick), bottom + 17) for tick in axis.ticks()]
    return [*ticks, _label("seconds of scenario time", (axis.left + axis.right) / 2, bottom + 34)]


def _mark(mark: Mark, axis: Axis, y: float, bottom: float) -> Element:
    x = axis.x(mark.at)
    return el(
        "g",
        el("title", f"{mark.number}. {mark.at:.1f} s: {mark.what}"),
        el("line", x1=x, x2=x, y1=y, y2=bottom),
        el("circle", cx=x, cy=y, r=9.5),
        el("text", str(mark.number), x=x, y=y + 3.7),
        class_=f"mark {mark.kind}",
        data_mark=mark.number,
    )

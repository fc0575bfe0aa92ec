"""Panels of lines and bands on a shared time axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element

from trimtab.svg import Axis, el

GAP_SECONDS = 3.5
"""A line is broken where nothing was known for longer than this: a gap in the data is a gap in the plot."""


@dataclass(frozen=True)
class Series:
    """Values over scenario time. A `step` holds its value until the next; a `band` fills from `base` (same times) up to it."""

    label: str
    style: str
    points: Sequence[tuple[float, float | None]]
    shape: Literal["line", "step", "band"] = "line"
    base: Sequence[float] = ()
    legend: bool = True


@dataclass(frozen=True)
class Panel:
    """One plot: `top` is the value at its upper edge (0 at the lower), `ticks` are the values to label, `say` words a value."""

    title: str
    series: Sequence[Series]
    top: float
    ticks: Sequence[tuple[float, str]]
    height: int = 110
    limit: tuple[float, str] | None = None
    say: Callable[[float], str] = "{:.3g}".format


def draw(panel: Panel, axis: Axis, y: float) -> Element:
    """The panel as a group with its upper edge at pixel `y`."""
    low = y + panel.height

    def height(value: float) -> float:
        return low - min(max(value, 0.0), panel.top) / panel.top * panel.height

    group = el("g", el("rect", x=axis.left, y=y, width=axis.right - axis.left, height=panel.height, class_="plot"))
    for value, label in panel.ticks:
        group.append(el("line", x1=axis.left, x2=axis.right, y1=height(value), y2=height(value), class_="grid"))
        group.append(el("text", label, x=axis.left - 8, y=height(value) + 4, class_="tick end"))
    for series in panel.series:
        for piece in pieces(series):
            group.append(el("path", d=_path(series, piece, axis, height), class_=f"{series.shape} {series.style}"))
    if panel.limit is not None and panel.limit[0] <= panel.top:
        at = height(panel.limit[0])
        group.append(el("line", x1=axis.left, x2=axis.right, y1=at, y2=at, class_="limit"))
        group.append(el("text", panel.limit[1], x=axis.right - 4, y=at - 4, class_="tick end limit-text"))
    group.append(el("text", panel.title, x=axis.left, y=y - 8, class_="title"))
    _legend(group, panel, axis, y - 8)
    return group


def _legend(group: Element, panel: Panel, axis: Axis, y: float) -> None:
    x = axis.right
    for series in reversed([series for series in panel.series if series.legend]):
        x -= len(series.label) * 6.4 + 4
        group.append(el("text", series.label, x=x, y=y, class_="tick"))
        x -= 18
        group.append(el("line", x1=x, x2=x + 13, y1=y - 4, y2=y - 4, class_=f"key {series.style}"))
        x -= 12


def pieces(series: Series) -> list[list[tuple[float, float, float]]]:
    """The runs of known values without a gap, as (time, value, base)."""
    found: list[list[tuple[float, float, float]]] = []
    last: float | None = None
    for i, (time, value) in enumerate(series.points):
        if value is None:
            last = None
            continue
        if last is None or time - last > GAP_SECONDS:
            found.append([])
        found[-1].append((time, value, series.base[i] if series.base else 0.0))
        last = time
    return found


def _path(series: Series, piece: Sequence[tuple[float, float, float]], axis: Axis, height: Callable[[float], float]) -> str:
    upper = _edge([(axis.x(t), height(v)) for t, v, _ in piece], stepped=series.shape != "line")
    if series.shape != "band":
        return "M" + "L".join(upper)
    lower = _edge([(axis.x(t), height(b)) for t, _, b in piece], stepped=True)
    return "M" + "L".join([*upper, *reversed(lower)]) + "Z"


def _edge(points: Sequence[tuple[float, float]], *, stepped: bool) -> list[str]:
    edge: list[str] = []
    for i, (x, y) in enumerate(points):
        if stepped and i:
            edge.append(f"{x:.1f} {points[i - 1][1]:.1f}")
        edge.append(f"{x:.1f} {y:.1f}")
    if len(points) == 1:
        edge.append(f"{points[0][0] + 1.5:.1f} {points[0][1]:.1f}")
    return edge

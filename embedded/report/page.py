"""The report as one HTML page that needs nothing else: figures, expectations, the chart and every mark explained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

from embedded.judge import Verdict
from embedded.live import GPU_NOTE
from embedded.recording import Recording, Request
from embedded.report.chart import axis_of, chart
from embedded.report.marks import Mark, marks
from embedded.report.plots import client_points, panels
from embedded.report.svg import Panel
from embedded.scenario import Scenario
from trimtab.svg import Axis, el

Figures = Mapping[str, float | None]


def write(
    path: Path,
    scenario: Scenario,
    seed: int,
    recording: Recording,
    requests: Sequence[Request] | None,
    verdicts: Sequence[Verdict],
    figures: Figures,
    trouble: Sequence[str] = (),
) -> None:
    """Writes the report. `trouble` says what kept the run from being whole; without `requests` the plots use telemetry."""
    path.write_text(page(scenario, seed, recording, requests, verdicts, figures, trouble), encoding="utf-8")


def page(
    scenario: Scenario,
    seed: int,
    recording: Recording,
    requests: Sequence[Request] | None,
    verdicts: Sequence[Verdict],
    figures: Figures,
    trouble: Sequence[str] = (),
) -> str:
    """The report as HTML."""
    zero = recording.zero if recording.zero is not None else _earliest(recording, requests)
    end = min(scenario.duration, _latest(recording, requests) - zero)
    axis = axis_of(scenario, end)
    points = client_points(requests, zero - scenario.warmup, zero + end) if requests else recording.points
    plots = panels(recording, points, zero)
    found = marks(recording, zero)
    ok = bool(verdicts) and all(verdict.held for verdict in verdicts) and not trouble
    body = el(
        "main",
        el(
            "header",
            el("h1", f"Trimtab: {scenario.name}"),
            el("span", "every expectation held" if ok else "not as expected", class_=f"badge {'good' if ok else 'bad'}"),
        ),
        el("p", _about(scenario, seed, zero), class_="meta"),
        *[el("p", words, class_="missed") for words in trouble],
        _cards(figures),
        el("h2", "What was expected, and what was seen"),
        _verdicts(verdicts),
        el("h2", "What happened"),
        el("p", f"All plots share one time axis. {GPU_NOTE} Lines break where nothing was known.", class_="note"),
        el("div", chart(scenario, recording, plots, found, axis), class_="chart"),
        el("h2", "Findings and decisions"),
        _explained(found),
    )
    html = el("html", _head(scenario), el("body", body, el("div", id="tip"), *_script(plots, axis)), lang="en")
    return "<!doctype html>\n" + tostring(html, encoding="unicode", method="html")


def _about(scenario: Scenario, seed: int, zero: float) -> str:
    fleet = scenario.fleet
    return (
        f"{datetime.fromtimestamp(zero, UTC):%Y-%m-%d %H:%M} UTC, seed {seed}, {scenario.duration:g} s of scenario time, "
        f"fleet {fleet.model} with {fleet.replicas.min} to {fleet.replicas.max} replicas"
    )


def _earliest(recording: Recording, requests: Sequence[Request] | None) -> float:
    return min([r.time for r in requests or []] + [n.time for n in recording.notes], default=0.0)


def _latest(recording: Recording, requests: Sequence[Request] | None) -> float:
    times = [r.time for r in requests or []] + [p.time for p in recording.points] + [n.time for n in recording.notes]
    return max(times, default=0.0)


def _asset(name: str) -> str:
    return files("embedded.report").joinpath(name).read_text(encoding="utf-8")


def _head(scenario: Scenario) -> Element:
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"Trimtab: {scenario.name}"),
        el("style", _asset("style.css")),
    )


def _script(plots: Sequence[Panel], axis: Axis) -> list[Element]:
    series = []
    for panel in plots:
        short = panel.title.split(":")[0].split(",")[0]
        for one in panel.series:
            base = one.base or [0.0] * len(one.points)
            known = [(round(t, 1), panel.say(v - low)) for (t, v), low in zip(one.points, base, strict=True) if v is not None]
            series.append({"label": f"{short}, {one.label}", "points": known})
    data = {"start": axis.start, "end": axis.end, "left": axis.left, "right": axis.right, "series": series}
    # "<" would end the element early; JSON can say it otherwise
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return [el("script", text, id="data", type="application/json"), el("script", _asset("page.js"))]


_CARDS = (
    ("rollback_s", "first bad response to rollback", "{:.1f} s", 1.0),
    ("scale_up_s", "surge to scale-up decision", "{:.1f} s", 1.0),
    ("quarantine_s", "replica fault to quarantine", "{:.1f} s", 1.0),
    ("promote_s", "release to promotion", "{:.1f} s", 1.0),
    ("client_error_ratio", "of client requests failed", "{:.2f} %", 100.0),
    ("client_p99_s", "client p99 latency", "{:.0f} ms", 1000.0),
    ("requests", "client requests", "{:,.0f}", 1.0),
    ("accuracy", "of answers were right", "{:.1f} %", 100.0),
    ("peak_memory_bytes", "peak memory of the whole stack", "{:.1f} GB", 1e-9),
)


def say(name: str, value: float) -> str:
    """A figure in words, such as ``3.1 s``."""
    for known, _, words, factor in _CARDS:
        if known == name:
            return words.format(value * factor)
    return f"{value:.1f} s" if name.endswith("_s") else f"{value:,.0f}"


def _cards(figures: Figures) -> Element:
    shown = [(label, say(name, value)) for name, label, _, _ in _CARDS if (value := figures.get(name)) is not None]
    return el("div", *[el("div", el("b", value), el("span", label), class_="card") for label, value in shown], class_="cards")


def _table(heads: Sequence[str], rows: Sequence[Element]) -> Element:
    return el("table", el("thead", el("tr", *[el("th", head) for head in heads])), el("tbody", *rows))


def _verdicts(verdicts: Sequence[Verdict]) -> Element:
    if not verdicts:
        return el("p", "The run was stopped before it could be judged.", class_="note")
    rows = [
        el(
            "tr",
            el("td", "held" if verdict.held else "missed", class_="held" if verdict.held else "missed"),
            el("td", verdict.expectation),
            el("td", verdict.measured),
        )
        for verdict in verdicts
    ]
    return _table(("", "expected", "seen"), rows)


def _explained(found: Sequence[Mark]) -> Element:
    rows = [
        el(
            "tr",
            el("td", el("span", str(mark.number), class_=f"dot {mark.kind}")),
            el("td", f"{mark.at:.1f} s", class_="num"),
            el("td", mark.kind),
            el("td", mark.what, *[el("small", line) for line in mark.why]),
            id=f"row-{mark.number}",
            data_mark=mark.number,
        )
        for mark in found
    ]
    return _table(("", "at", "", "what, and why"), rows) if rows else el("p", "There were none.", class_="note")

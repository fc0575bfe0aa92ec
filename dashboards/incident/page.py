"""The page of one incident: a single HTML file without scripts that needs nothing from anywhere. Pure but for `write`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

from dashboards.incident.chart import chart
from dashboards.incident.story import Shown, Story
from dashboards.notify import words
from trimtab.errors import SettingsError
from trimtab.messages import Decision
from trimtab.svg import el

# Characters that no page may hold, wherever they came from.
_NO_CONTROLS = dict.fromkeys([*(set(range(32)) - {9, 10, 13}), *range(0xD800, 0xE000)], "\ufffd")

_NUMBERS = ("time", "observed", "expected", "score")


def write(story: Story, file: Path) -> None:
    """Writes the page, whole or not at all. Raises `SettingsError` when the file cannot be written."""
    half = file.with_name(f".{file.name}.half")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        half.write_text(page(story), encoding="utf-8")
        half.replace(file)
    except OSError as error:
        raise SettingsError(f"{file}: cannot be written: {error.strerror}") from error


def page(story: Story) -> str:
    """The page as text."""
    incident = story.incident
    body = el(
        "main",
        el(
            "header",
            el("h1", _capital(story.title)),
            el("span", incident.severity, class_=f"badge {incident.severity}"),
            el("span", incident.state, class_=f"badge {incident.state}"),
        ),
        el("p", _about(story), class_="meta"),
        el("p", _capital(story.summary), class_="summary"),
        el("p", el("a", "Open this time in Grafana", href=story.link)) if story.link else None,
        el("h2", "What led to what"),
        el("div", chart(story), class_="chart"),
        _steps(story),
        el("h2", "The evidence"),
        _evidence(story.evidence),
        el("h2", "What was decided, under which guard"),
        _decisions(story.decisions),
        el("h2", "What the policy refused, and why"),
        _refused(story.refused),
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"Incident: {story.title}"),
        el("style", files("dashboards.incident").joinpath("style.css").read_text(encoding="utf-8")),
    )
    text = tostring(el("html", head, el("body", body), lang="en"), encoding="unicode", method="html")
    return "<!doctype html>\n" + text.translate(_NO_CONTROLS) + "\n"


def _about(story: Story) -> str:
    incident = story.incident
    ended = (
        f", over after {words.duration(incident.resolved - incident.opened)}" if incident.resolved is not None else ", not over"
    )
    return f"Incident {incident.id}, began {words.moment(incident.opened):%Y-%m-%d %H:%M:%S} UTC{ended}"


def _capital(text: str) -> str:
    """As a sentence begins, unless it begins with a name."""
    return text[:1].upper() + text[1:] if text.partition(" ")[0].isalpha() else text


def _steps(story: Story) -> Element:
    rows = [
        el(
            "tr",
            el("td", el("span", str(step.number), class_=f"dot {step.tone}")),
            el("td", f"{step.time - story.incident.opened:+.1f} s", class_="num"),
            el("td", step.lane),
            el("td", step.what, *[el("small", line) for line in step.details if line], class_="wide"),
            id=f"step-{step.number}",
        )
        for step in story.steps
    ]
    return _table(("", "time", "", "what happened"), rows)


def _evidence(shown: Sequence[Shown]) -> Element:
    if not shown:
        return el("p", "No detector was asked: the acts followed from the comparison of versions or from demand.", class_="note")
    rows = [
        el(
            "tr",
            el("td", words.kind_words(one.finding.kind), el("small", one.finding.target or "")),
            el("td", one.evidence.detector),
            el("td", one.evidence.series, class_="series"),
            el("td", _number(one.evidence.observed), el("small", _later(one)), class_="num"),
            el("td", _number(one.evidence.expected), class_="num"),
            el("td", _number(one.evidence.score), el("small", _limit(one)), class_="num"),
        )
        for one in shown
    ]
    return _table(("finding", "detector", "series", "observed", "expected", "score"), rows)


def _later(one: Shown) -> str:
    return f"at last {_number(one.last.observed)}" if one.last is not None and one.last.observed != one.evidence.observed else ""


def _limit(one: Shown) -> str:
    return f"threshold {_number(one.evidence.threshold)}" if one.evidence.threshold is not None else ""


def _decisions(decisions: Sequence[Decision]) -> Element:
    if not decisions:
        return el("p", "Nothing was decided on it.", class_="note")
    rows = [
        el(
            "tr",
            el("td", decision.action.replace("_", " "), el("small", "dry run" if decision.dry_run else "")),
            el("td", decision.outcome, class_=decision.outcome),
            el("td", words.decision_words(decision).partition(". ")[0], el("small", decision.reason), class_="wide"),
            el("td", *[el("small", f"{name} {_plain(value)}") for name, value in decision.guard.items()], class_="guard"),
        )
        for decision in decisions
    ]
    return _table(("act", "outcome", "what, and why", "guard"), rows)


def _refused(refused: Sequence[tuple[Decision, bool]]) -> Element:
    if not refused:
        return el("p", "While this went on the policy refused nothing that something asked for.", class_="note")
    rows = [
        el(
            "tr",
            el("td", decision.action.replace("_", " ")),
            el(
                "td",
                decision.reason,
                *[el("small", f"{name} {_plain(value)}") for name, value in decision.guard.items()],
                class_="wide",
            ),
            el("td", "this incident" if mine else "another cause at the same time"),
        )
        for decision, mine in refused
    ]
    return _table(("act", "why not", "about"), rows)


def _table(heads: Iterable[str], rows: Sequence[Element]) -> Element:
    titles = [el("th", head, class_="num" if head in _NUMBERS else None) for head in heads]
    whole = el("table", el("thead", el("tr", *titles)), el("tbody", *rows))
    return el("div", whole, class_="scroll")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

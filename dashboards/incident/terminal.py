"""An incident, and the list of all, in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dashboards.incident.story import Archive, Story
from dashboards.notify import words

_COLOURS = {"critical": "red", "warning": "yellow", "info": "blue"}
_CONTROLS = dict.fromkeys([*range(10), *range(11, 32), *range(127, 160)], "\ufffd")
"""A name may hold anything; a terminal must not be told to do something by it."""

_TONES = {"plain": "blue", "found": "yellow", "done": "green", "refused": "dim", "bad": "red"}


def show_list(archive: Archive, console: Console) -> None:
    """All incidents, oldest first."""
    table = Table(box=None, pad_edge=False)
    for column in ("incident", "began (UTC)", "severity", "state", "about", "updates"):
        table.add_column(column, justify="right" if column == "updates" else "left", overflow="fold")
    for updates in archive.incidents:
        incident = updates[-1].incident
        table.add_row(
            incident.id[:8],
            _clock(incident.opened),
            _text(incident.severity, _COLOURS[incident.severity]),
            incident.state,
            _text(updates[-1].title),
            str(incident.updates),
        )
    console.print(table)


def show(story: Story, console: Console) -> None:
    """The chain, the evidence and the refusals."""
    incident = story.incident
    state = "not over" if incident.resolved is None else f"over after {words.duration(incident.resolved - incident.opened)}"
    console.print(
        Text.assemble(
            (_safe(story.title), "bold"), "  ", (incident.severity, f"bold {_COLOURS[incident.severity]}"), f"  {state}"
        )
    )
    console.print(_text(f"incident {incident.id}, began {_clock(incident.opened)} UTC", "dim"))
    console.print(_text(story.summary))
    if story.link:
        console.print(_text(story.link, "dim"), soft_wrap=True)
    _chain(story, console)
    _evidence(story, console)
    console.print(_text("\nrefused, and why", "bold"))
    for decision, mine in story.refused:
        console.print(_text(f"  {decision.reason}" + ("" if mine else " (another cause at the same time)")))
    if not story.refused:
        console.print(_text("  nothing", "dim"))


def _chain(story: Story, console: Console) -> None:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(width=8)
    table.add_column(overflow="fold")
    for step in story.steps:
        led = f"  ← {', '.join(map(str, step.causes[:1]))}" if step.causes else ""
        lines = [(f"\n{_safe(line)}", "dim") for line in step.details if line]
        what = Text.assemble((_safe(step.what), _TONES[step.tone]), (led, "dim"), *lines)
        table.add_row(str(step.number), f"{step.time - story.incident.opened:+.1f} s", step.lane, what)
    console.print()
    console.print(table)


def _evidence(story: Story, console: Console) -> None:
    console.print(_text("\nevidence", "bold"))
    for one in story.evidence:
        observed = "unknown" if one.evidence.observed is None else f"{one.evidence.observed:.4g}"
        expected = "" if one.evidence.expected is None else f", expected {one.evidence.expected:.4g}"
        score = "" if one.evidence.score is None else f", score {one.evidence.score:.4g}"
        console.print(_text(f"  {one.evidence.detector}: {one.evidence.series} is {observed}{expected}{score}"))
    if not story.evidence:
        console.print(_text("  none: the acts followed from the comparison of versions or from demand", "dim"))


def _clock(time: float) -> str:
    return f"{words.moment(time):%Y-%m-%d %H:%M:%S}"


def _safe(words: str) -> str:
    return words.translate(_CONTROLS)


def _text(words: str, style: str = "") -> Text:
    return Text(_safe(words), style)

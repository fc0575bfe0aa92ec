"""What one sees of a run in a terminal, drawn from a recording. Pure: `embedded.view` shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from embedded import timeline
from embedded.judge import Verdict
from embedded.recording import Note, Point, Recording
from embedded.scenario import Scenario
from trimtab.messages import FleetState, Score

GPU_NOTE = "Any GPU telemetry here is a replay of recorded DCGM data; everything else is measured here and now."
_BARS = "▁▂▃▄▅▆▇█"
_STYLES = {
    "scenario": "bold cyan",
    "finding": "yellow",
    "decision": "bold green",
    "state": "dim",
    "release": "cyan",
    "process": "red",
}
_PHASES = {"ready": "green", "starting": "cyan", "draining": "yellow", "quarantined": "magenta", "failed": "red"}
_POOLS = {"stable": "green", "canary": "yellow", "previous": "blue"}
_SCORE_AGE = 10.0
"""Seconds after which a score counts as gone."""


@dataclass(frozen=True)
class Stage:
    """Where the demo stands: what it does now in words, and when the scenario clock started (None: not yet)."""

    words: str
    zero: float | None = None


def sparkline(values: Sequence[float | None], width: int, top: float | None = None) -> str:
    """The last `width` values as bars from 0 to `top` (their maximum when not given); unknown is a gap."""
    shown = [None if value is None or math.isnan(value) else value for value in list(values)[-width:]]
    highest = top or max((value for value in shown if value is not None and math.isfinite(value)), default=0.0) or 1.0
    return "".join(" " if value is None else _bar(value / highest) for value in shown)


def _bar(share: float) -> str:
    return _BARS[int(min(max(share, 0.0), 0.999) * len(_BARS))]


def frame(scenario: Scenario, seed: int, stage: Stage, recording: Recording, now: float) -> RenderableType:
    """The whole view at unix time `now`."""
    layout = Layout()
    layout.split_column(Layout(name="head", size=4), Layout(name="middle"), Layout(name="log"))
    layout["head"].update(head(scenario, seed, stage, now))
    layout["middle"].split_row(Layout(name="traffic", ratio=5), Layout(name="fleet", ratio=6))
    layout["traffic"].update(Panel(Group(*_traffic(recording, now), *_scores(recording, now)), title="traffic and scores"))
    layout["fleet"].update(Panel(_fleet(recording, now), title=f"fleet {scenario.fleet.model}"))
    layout["log"].update(Panel(_log(recording), title="what happened", subtitle=GPU_NOTE, subtitle_align="left"))
    return layout


def head(scenario: Scenario, seed: int, stage: Stage, now: float) -> RenderableType:
    """The top of the view: which scenario, the clock, and what comes next."""
    title = Text.assemble(("Trimtab demo", "bold"), f"  {scenario.name}  seed {seed}")
    if stage.zero is None:
        return Panel(Text(stage.words, style="cyan"), title=title, title_align="left")
    clock = min(max(now - stage.zero, 0.0), scenario.duration)
    coming = next((act for act in timeline.acts(scenario) if act.at > clock and act.edge == "begin"), None)
    ahead = f"in {coming.at - clock:.0f} s: {coming.words}" if coming else "nothing more is planned"
    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(width=13)
    line.add_column(ratio=1)
    line.add_column(ratio=2)
    line.add_row(f"{clock:4.0f} / {scenario.duration:.0f} s", ProgressBar(scenario.duration, clock), Text(ahead, "dim"))
    return Panel(Group(line, Text(stage.words, style="cyan", no_wrap=True)), title=title, title_align="left")


def _versions(points: Sequence[Point]) -> list[int | None]:
    return sorted({p.version for p in points}, key=lambda v: (v is None, v or 0))


def _traffic(recording: Recording, now: float) -> list[RenderableType]:
    recent = [p for p in recording.points if p.time > now - 60]
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=11)
    table.add_column(ratio=1, no_wrap=True)
    table.add_column(justify="right", width=9)
    seconds = [int(now) - back for back in range(59, -1, -1)]
    for version in _versions(recent):
        by_second = {int(p.time): p for p in recent if p.version == version}
        latest = max(by_second.values(), key=lambda p: p.time)
        name = "no answer" if version is None else f"version {version}"
        rates = [by_second[s].requests if s in by_second else None for s in seconds]
        p99s = [by_second[s].p99 if s in by_second else None for s in seconds]
        fresh = now - latest.time < _SCORE_AGE
        table.add_row(Text(name, "bold"), Text(sparkline(rates, 40), "green"), f"{latest.requests:.1f}/s" if fresh else "?")
        p99 = f"{latest.p99 * 1000:.0f} ms" if fresh and latest.p99 is not None else "?"
        table.add_row("  p99", Text(sparkline(p99s, 40), "magenta"), p99)
        if latest.errors or latest.wrong:
            said = f"{latest.errors:.1f} errors/s, {latest.wrong:.1f} wrong answers/s"
            table.add_row("", Text(said, "red" if latest.errors else "dim"), "")
    return [table] if recent else [Text("no traffic seen yet", "dim")]


def latest_scores(recording: Recording, now: float) -> dict[str, list[Score]]:
    """The newest score of each target by detector, highest first; scores that are too old are gone."""
    newest: dict[tuple[str, str], Score] = {}
    for score in reversed(recording.scores):
        if score.time < now - _SCORE_AGE:
            break
        newest.setdefault((score.detector, score.target), score)
    found: dict[str, list[Score]] = {}
    for score in sorted(newest.values(), key=lambda s: (s.detector, -s.score)):
        found.setdefault(score.detector, []).append(score)
    return found


def _scores(recording: Recording, now: float) -> list[RenderableType]:
    scores = latest_scores(recording, now)
    if not scores:
        return [Text("no scores yet: the learned detectors start after training", "dim")]
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=18, no_wrap=True)
    table.add_column(width=12)
    table.add_column(ratio=1, no_wrap=True)
    for detector, ranked in sorted(scores.items(), key=lambda item: -item[1][0].score):
        top = ranked[0]
        style = "red" if top.score > 0.999 else "yellow" if top.score > 0.99 else "green"
        table.add_row(detector, Text("█" * round(top.score * 10), style), f"{top.score:.4f} {top.target}")
    return [table]


def _fleet(recording: Recording, now: float) -> RenderableType:
    if not recording.states:
        return Text("the autoscaler has not said yet what runs", "dim")
    state = recording.states[-1]
    worst: dict[str, float] = {}
    for ranked in latest_scores(recording, now).values():
        for score in ranked:
            worst[score.target] = max(score.score, worst.get(score.target, 0.0))
    table = Table(expand=True, box=None, header_style="dim", padding=(0, 1))
    for column in ("replica", "v", "pool", "phase", "traffic", "score"):
        table.add_column(column, no_wrap=True)
    for pool in state.pools:
        for replica in pool.replicas:
            score_ = worst.get(replica.name)
            table.add_row(
                replica.name,
                str(replica.version),
                Text(pool.role, _POOLS.get(pool.role, "")),
                Text(replica.phase, _PHASES.get(replica.phase, "")),
                "yes" if replica.in_traffic else "no",
                "" if score_ is None else f"{score_:.3f}",
            )
    return Group(_weights(state), table)


def _weights(state: FleetState) -> Text:
    text = Text("weights ", no_wrap=True)
    for pool in state.pools:
        if pool.weight:
            label = f" v{pool.version} {pool.weight}% "
            text.append(label.center(round(pool.weight * 0.3)), f"reverse {_POOLS.get(pool.role, '')}")
    return text


def _log(recording: Recording) -> RenderableType:
    lines = Table.grid(padding=(0, 1))
    lines.add_column(justify="right", width=8)
    lines.add_column(width=9)
    lines.add_column()
    for note in reversed([note for note in recording.notes if note.kind != "state"][-40:]):
        lines.add_row(*_cells(note))
    return lines


def _cells(note: Note) -> tuple[Text, Text, Text]:
    style = _STYLES.get(note.kind, "")
    at = "" if note.at is None else f"{note.at:.1f} s"
    return Text(at, "dim"), Text(note.kind, style), Text(note.words, style if note.kind != "finding" else "")


def plain(note: Note) -> str:
    """A line of the events as plain text."""
    at = "warm-up" if note.at is None or note.at < 0 else f"{note.at:.1f} s"
    return f"{at:>9}  {note.kind:<8}  {note.words}"


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """The expectations, held or missed."""
    table = Table(title="What was expected, and what was seen", title_justify="left", header_style="bold")
    for column in ("", "expected", "seen"):
        table.add_column(column)
    for verdict in verdicts:
        mark = Text("held", "bold green") if verdict.held else Text("MISSED", "bold red")
        table.add_row(mark, Text(verdict.expectation), Text(verdict.measured))
    return table

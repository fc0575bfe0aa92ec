"""The view while a scenario plays: what it shows at a time, and plain lines where there is no terminal."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from embedded import scenario as scenarios
from embedded.judge import Verdict
from embedded.live import GPU_NOTE, Stage, frame, latest_scores, plain, sparkline, verdict_table
from embedded.recorder import Recorder
from embedded.recording import Point, Recording
from embedded.view import View
from trimtab.memory_bus import MemoryBus
from trimtab.messages import Decision, FleetState, PoolState, ReplicaState, Score

ZERO = 1_700_000_000.0
TOUR = scenarios.read(scenarios.find("tour"))


def shown(recording: Recording, at: float, zero: float | None = ZERO) -> str:
    console = Console(file=io.StringIO(), width=160, height=44, force_terminal=True, color_system=None)
    console.print(frame(TOUR, 7, Stage("playing", zero), recording, ZERO + at), height=44)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def score(at: float, target: str, value: float) -> Score:
    return Score(fleet="intent", target=target, time=ZERO + at, detector="cnn_lstm", score=value)


@pytest.fixture
def recording() -> Recording:
    found = Recording(TOUR.spec(), zero=ZERO)
    replicas = [
        ReplicaState(name="intent-v1-1", version=1, phase="quarantined", since=ZERO),
        ReplicaState(name="intent-v1-2", version=1, phase="ready", since=ZERO, in_traffic=True),
    ]
    pools = [
        PoolState(version=1, role="stable", weight=80, wanted=2, replicas=replicas),
        PoolState(version=2, role="canary", weight=20, wanted=1),
    ]
    found.add(FleetState(fleet="intent", time=ZERO + 99, pools=pools))
    found.points.append(Point(ZERO + 100, 1, 21.5, 0.4, 1.2, 0.01, 0.034))
    found.add(score(100, "intent-v1-1", 0.9991))
    found.add(
        Decision(
            id="q",
            fleet="intent",
            time=ZERO + 98,
            action="quarantine",
            target="intent-v1-1",
            outcome="applied",
            reason="it hangs",
        )
    )
    return found


def test_the_frame_shows_clock_traffic_replicas_weights_scores_and_decisions(recording: Recording) -> None:
    text = shown(recording, 100.5)
    for words in (
        "Trimtab demo",
        "seed 7",
        "100 / 240 s",
        "in 20 s: version 2 is released",
        "21.5/s",
        "34 ms",
        "0.4 errors/s",
        "v1 80%",
        "v2 20%",
        "quarantined",
        "0.9991 intent-v1-1",
        "quarantine intent-v1-1. it hangs",
        GPU_NOTE[:50],
    ):
        assert words in text


def test_old_numbers_are_shown_as_unknown(recording: Recording) -> None:
    text = shown(recording, 115)
    assert "21.5/s" not in text and "0.9991" not in text and "?" in text


def test_an_empty_recording_says_that_nothing_is_known_yet() -> None:
    text = shown(Recording(TOUR.spec()), 0, zero=None)
    assert "no traffic seen yet" in text and "no scores yet" in text and "has not said yet" in text


def test_words_in_messages_are_not_markup(recording: Recording) -> None:
    recording.note(ZERO + 100, "process", "[red]boom[/red] [/]")
    assert "[red]boom[/red] [/]" in shown(recording, 101)


def test_the_newest_score_of_each_target_highest_first(recording: Recording) -> None:
    for one in (score(101, "intent-v1-1", 0.2), score(101, "gateway", 0.7), score(80, "old", 1.0)):
        recording.scores.insert(0 if one.target == "old" else len(recording.scores), one)
    found = latest_scores(recording, ZERO + 102)
    assert [(s.target, s.score) for s in found["cnn_lstm"]] == [("gateway", 0.7), ("intent-v1-1", 0.2)]


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([0.0, None, 8.0], "▁ █"),
        ([1, 2, 3, 4], "▅▇█"),
        ([None, None], "  "),
        ([float("inf")], "█"),
        ([float("nan")], " "),
    ],
)
def test_sparklines(values: list[float | None], bars: str) -> None:
    assert sparkline(values, 3 if len(values) == 4 else 10) == bars


def test_without_a_terminal_there_are_plain_lines(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80)
    view = View(console, TOUR, 7, as_lines=False)
    view.start()
    view.line("kafka started")
    recorder = Recorder(MemoryBus(), TOUR.spec(), tmp_path / "records.jsonl")
    recorder.note("process", "collect ready")
    recorder.clock_starts(time.time() - 12.0)
    recorder.note("decision", "scale: replicas 1 → replicas 3. " + "because " * 20)
    view.attach(recorder)
    view.stage("playing", time.time())
    view.stop()
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert GPU_NOTE in lines[0] and any("kafka started" in line for line in lines)
    assert "  warm-up  process   collect ready" in lines
    assert any(line.startswith("   12.0 s  decision  scale: replicas 1 → replicas 3.") for line in lines)


def test_plain_lines_fit_the_notes(recording: Recording) -> None:
    assert plain(recording.notes[-1]) == "   98.0 s  decision  quarantine intent-v1-1. it hangs"


def test_the_table_of_expectations_says_held_or_missed() -> None:
    console = Console(file=io.StringIO(), width=100)
    held = Verdict(expectation="never rollback", held=True, measured="it never was")
    missed = Verdict(expectation="promote version 2", held=False, measured="did not come [/]")
    console.print(verdict_table([held, missed]))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "held" in text and "MISSED" in text and "did not come [/]" in text

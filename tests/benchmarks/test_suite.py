"""Each benchmark in its quick form: rows with the same keys, and figures that are numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import frame, tours
from benchmarks.cli import bench
from benchmarks.suite import tour
from embedded.judge import Verdict
from embedded.results import write_summary
from trimtab.errors import SettingsError

FIGURES: dict[str, float | None] = {
    "rollback_s": 2.0,
    "scale_up_s": 1.0,
    "quarantine_s": 3.0,
    "promote_s": 11.0,
    "client_error_ratio": 0.001,
    "client_p99_s": 0.05,
    "peak_memory_bytes": 2e9,
    "findings": 5.0,
}


def finished(folder: Path, seed: int, scenario: str = "tour", held: bool = True, **figures: float | None) -> Path:
    folder.mkdir(parents=True)
    verdicts = [
        Verdict(expectation="scale up", held=True, measured="came after 1 s", value=1.0),
        Verdict(expectation="promote", held=held, measured="came at 130 s" if held else "did not come", value=None),
    ]
    write_summary(folder / tours.SUMMARY, scenario, seed, verdicts, {**FIGURES, **figures}, [])
    return folder


def is_finite(record: Mapping[str, object]) -> bool:
    figures = record["figures"]
    assert isinstance(figures, dict) and figures
    return all(isinstance(value, float | int) and math.isfinite(value) for value in figures.values())


@pytest.mark.integration
def test_scaling_quick_gives_numbers_for_every_controller_and_situation(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.scaling import play

    # As --quick, but half as long.
    whole = play.situations
    monkeypatch.setattr(play, "situations", lambda duration, at: whole(240.0, 30.0))
    record = frame.measure("scaling", frame.Options(quick=True, say=lambda text: None))
    rows = record["rows"]
    assert isinstance(rows, list) and len(rows) == 7 * 7
    assert all(row.keys() == rows[0].keys() for row in rows)
    figures = record["figures"]
    assert isinstance(figures, dict)
    known = {name: value for name, value in figures.items() if not name.endswith(("reaction_s", "enough_s"))}
    assert len(known) == 7 * (7 * 2 + 4)
    assert all(isinstance(value, float) and math.isfinite(value) for value in known.values())
    assert figures["trimtab_slow_added"] == figures["trimtab_failing_added"] == 0.0
    assert figures["trimtab_surge_reaction_s"] is not None


def test_tour_quick_reads_the_newest_finished_tour_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    old = finished(Path("runs/tour-1"), 1, scale_up_s=9.0)
    os.utime(old / tours.SUMMARY, (1, 1))
    finished(Path("runs/bench-tour-1/seed-2"), 2)
    finished(Path("runs/healthy-1"), 3, scenario="healthy", scale_up_s=None)
    record = frame.measure("tour", frame.Options(quick=True))
    assert is_finite(record)
    figures, notes = record["figures"], record["notes"]
    assert isinstance(figures, dict) and figures["scale_up_s"] == 1.0
    assert isinstance(notes, list) and any("nothing was played" in note for note in notes)


def test_tour_quick_without_a_finished_tour_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="trimtab demo"):
        frame.measure("tour", frame.Options(quick=True))


def test_medians_over_runs_and_a_miss_is_worse_than_any_number(tmp_path: Path) -> None:
    for seed, (rollback, quarantine) in enumerate([(1.0, 1.0), (2.0, None), (9.0, None)], 1):
        finished(tmp_path / f"t{seed}", seed, held=seed != 3, rollback_s=rollback, quarantine_s=quarantine)
    record = frame.measure("tour", frame.Options(runs=(tmp_path,)))
    figures, rows, notes = record["figures"], record["rows"], record["notes"]
    assert isinstance(figures, dict) and isinstance(rows, list) and isinstance(notes, list)
    assert (figures["rollback_s"], figures["quarantine_s"]) == (2.0, None)
    assert (figures["runs"], figures["runs_ok"], figures["expectations"], figures["expectations_held"]) == (3, 2, 6, 5)
    assert [row["seed"] for row in rows] == ["1", "2", "3", "median"]
    assert any("seed 3 missed: promote; did not come" in note for note in notes)


def test_a_run_that_came_to_nothing_is_a_row_of_unknowns(tmp_path: Path) -> None:
    whole = tours.read(finished(tmp_path / "t1", 1))
    result = tour.table([(1, whole), (2, None), (3, None)], [])
    assert result.figures["rollback_s"] is None
    assert (result.figures["runs"], result.figures["runs_ok"]) == (3, 1)
    assert result.rows[1]["held"] == "did not end"


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "not the summary"), ("{}", "not the summary"), ('{"ok": 1}', "not the summary"), (None, "no finished run")],
)
def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / tours.SUMMARY).write_text(text)
    with pytest.raises(SettingsError, match=words):
        frame.measure("tour", frame.Options(runs=(tmp_path,)))


def test_runs_of_several_scenarios_have_no_median(tmp_path: Path) -> None:
    finished(tmp_path / "a", 1)
    finished(tmp_path / "b", 1, scenario="healthy")
    with pytest.raises(SettingsError, match="healthy, tour"):
        frame.measure("tour", frame.Options(runs=(tmp_path,)))


def test_playing_runs_the_real_command_and_tells_of_a_run_that_did_not_start(tmp_path: Path) -> None:
    assert tours.play("no-such-scenario", 1, tmp_path / "seed-1") is None
    assert "no scenario 'no-such-scenario'" in (tmp_path / "seed-1" / "demo.log").read_text()


def test_options_that_a_benchmark_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'scaling' takes no --from"):
        frame.measure("scaling", frame.Options(runs=(tmp_path,)))
    with pytest.raises(SettingsError, match="either --seeds"):
        frame.measure("tour", frame.Options(runs=(tmp_path,), seeds=(1,)))


@pytest.mark.parametrize(("text", "seeds"), [("", ()), ("1,2, 3", (1, 2, 3)), ("4,4", (4,)), ("0", (0,))])
def test_seeds_are_read(text: str, seeds: tuple[int, ...]) -> None:
    assert frame.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["x", "1,", "-1", "1.5", "1;2", "²"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="such as 1,2,3"):
        frame.parse_seeds(text)


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    finished(tmp_path / "t1", 1)
    done = CliRunner().invoke(bench, ["tour", "--from", str(tmp_path / "t1"), "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    assert "rollback_s" in done.output and "median" in done.output
    assert '"expectations_held": 2' in (tmp_path / "out.json").read_text()


def test_medians() -> None:
    assert frame.median([3.0, 1.0, 2.0]) == 2.0
    assert frame.median([1.0, 2.0]) == 1.5
    assert frame.median([1.0, None]) is None
    assert frame.median([1.0, 2.0, None]) == 2.0
    assert frame.median([]) is None

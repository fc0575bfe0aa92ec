"""The demo from start to results, on a stack in memory: exit codes, files, and that everything is stopped however it ends."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from embedded import demo, scenario
from embedded.player import Player
from embedded.scenario import Scenario
from serving_stack.fault import Fault
from trimtab.errors import Missing, SettingsError, TrimtabError
from trimtab.memory_bus import MemoryBus
from trimtab.messages import DECISIONS, Decision, FleetSpec

SCENARIO = {
    "name": "quick",
    "duration": "600ms",
    "fleet": {"model": "intent", "replicas": {"min": 1, "max": 4}},
    "traffic": [{"at": "0s", "rate": "20/s"}],
    "events": [{"at": "100ms", "release": {"version": 2, "fault": {"kind": "slow", "by": "200ms"}}}],
    "expect": [
        {"decision": "rollback", "version": 2, "within": "5s", "of": "release"},
        {"client_errors": {"at_most": "10%"}},
    ],
}


class Child:
    """A child process that has ended."""

    def __init__(self, exit_code: int | None = 0) -> None:
        self.exit_code = exit_code

    def wait_ended(self, timeout: float | None = None) -> int | None:
        return self.exit_code

    def last_lines(self) -> str:
        return ":\n    out of memory"


class MemoryStack:
    """As `Stack`, with a bus in memory. It rolls back what is released, unless told otherwise."""

    opening = "starting"
    made: "MemoryStack"
    fails: BaseException | None = None
    rolls_back = True
    training_exit: int | None = 0

    def __init__(self, folder: Path, fleet: FleetSpec, seed: int, on_event: Callable[..., None]) -> None:
        self.folder, self.fleet, self._bus, self.stopped = folder, fleet, MemoryBus(), 0
        self.peak_memory_bytes = 4_000
        folder.mkdir(parents=True)
        type(self).made = self

    def start(self) -> None:
        self._bus.ensure_topics()
        if self.fails is not None:
            raise self.fails

    def bus(self) -> MemoryBus:
        return self._bus

    def start_traffic(self, plan: Path, start_at: float) -> Child:
        lines = [
            {"time": start_at + 0.3 + i / 10, "latency": 0.21, "outcome": "ok", "version": str(1 + i % 2)} for i in range(10)
        ]
        (self.folder / "requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return Child()

    def start_training(self, ticks: int = 45) -> Child:
        return Child(self.training_exit)

    def release(self, version: int, fault: Fault | None = None) -> None:
        why = Decision(
            id="r", fleet="intent", time=time.time(), action="rollback", version=version, outcome="applied", reason="slower"
        )  # fmt: skip
        if self.rolls_back:
            self._bus.producer().send(DECISIONS, why)

    def serving(self, version: int | None = None) -> list[str]:
        return ["a"]

    def inject(self, kind: str, replica: str, seconds: float = 0.2) -> None:
        raise AssertionError("the scenario has no replica fault")

    def telemetry_outage(self, which: str | Sequence[str], seconds: float) -> list[str]:
        raise AssertionError("the scenario has no outage")

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> type[MemoryStack]:
    class Mine(MemoryStack):
        pass

    quick = Scenario.model_validate(SCENARIO).model_copy(update={"warmup": 0.2})
    monkeypatch.setattr(demo, "Stack", Mine)
    monkeypatch.setattr(demo, "_TRAFFIC_STARTS_IN", 0.0)
    monkeypatch.setattr(scenario, "read", lambda path: quick)
    return Mine


def summary(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "summary.json").read_bytes())
    return read


def test_a_run_in_which_everything_held(stack: type[MemoryStack], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.run("tour", seed=3, out=tmp_path / "out", plain=True) == 0
    read = summary(tmp_path / "out")
    assert read["ok"] is True and read["seed"] == 3 and read["trouble"] == []
    assert [expectation["held"] for expectation in read["expectations"]] == [True, True]
    assert read["figures"]["client_error_ratio"] == 0 and read["figures"]["peak_memory_bytes"] == 4_000
    assert read["figures"]["quarantine_s"] is None
    for name in ("report.html", "events.jsonl", "records.jsonl", "traffic-plan.json"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    said = capsys.readouterr().out
    assert "version 2 is released; it is slow by 200 ms" in said and "rollback version 2. slower" in said and "held" in said
    assert stack.made.stopped >= 1


def test_a_missed_expectation_exits_with_1(stack: type[MemoryStack], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack.rolls_back = False
    assert demo.run("tour", out=tmp_path, plain=True) == 1
    assert summary(tmp_path)["ok"] is False and summary(tmp_path)["figures"]["rollback_s"] is None
    assert "MISSED" in capsys.readouterr().out


@pytest.mark.parametrize(("exit_code", "words"), [(1, "training the detectors failed:\n    out of memory"), (None, "not over")])
def test_a_run_without_trained_detectors_is_not_ok(
    stack: type[MemoryStack], tmp_path: Path, exit_code: int | None, words: str
) -> None:
    stack.training_exit = exit_code
    assert demo.run("tour", out=tmp_path, plain=True) == 1
    read = summary(tmp_path)
    assert words in read["trouble"][0] and all(expectation["held"] for expectation in read["expectations"])


def test_a_failing_start_is_told_with_where_the_logs_are(stack: type[MemoryStack], tmp_path: Path) -> None:
    stack.fails = Missing("kafka is not ready after 60 s.\n    no space left on device")
    with pytest.raises(TrimtabError, match=r"no space left on device\nThe logs are in .*stack/logs"):
        demo.run("tour", out=tmp_path, plain=True)
    assert stack.made.stopped == 1


def test_an_interrupted_start_stops_what_was_started(stack: type[MemoryStack], tmp_path: Path) -> None:
    stack.fails = KeyboardInterrupt()
    assert demo.run("tour", out=tmp_path, plain=True) == 130
    assert stack.made.stopped == 1


def test_an_interrupted_run_leaves_a_partial_report(
    stack: type[MemoryStack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Player, "play", interrupted)
    assert demo.run("tour", out=tmp_path, plain=True) == 130
    read = summary(tmp_path)
    assert (read["ok"], read["expectations"], read["trouble"]) == (False, [], ["the run was interrupted"])
    assert "the run was interrupted" in (tmp_path / "report.html").read_text()
    assert stack.made.stopped >= 1


def test_results_go_to_a_new_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = demo._results_folder(None, "tour"), demo._results_folder(None, "tour")
    assert first != second and first.parent == Path("runs") and first.name.startswith("tour-")
    (tmp_path / "file").touch()
    with pytest.raises(Missing, match="cannot be made"):
        demo._results_folder(tmp_path / "file", "tour")


def test_demos_started_at_once_get_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: demo._results_folder(None, "tour"), range(16)))
    assert len(set(folders)) == 16 and all(folder.is_dir() for folder in folders)


def test_a_folder_with_a_run_is_not_written_into_again(stack: type[MemoryStack], tmp_path: Path) -> None:
    assert demo.run("tour", out=tmp_path, plain=True) == 0
    before = (tmp_path / "summary.json").read_bytes()
    with pytest.raises(Missing, match="holds a run.*--out"):
        demo.run("tour", out=tmp_path, plain=True)
    assert (tmp_path / "summary.json").read_bytes() == before


def test_a_wrong_scenario_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        demo.run("no-such", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_list_names_every_scenario_and_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.list_scenarios() == 0
    said = capsys.readouterr().out
    assert all(name in said for name in scenario.shipped()) and "240 s" in said

"""`trimtab doctor`, `trimtab status` and the register of running stacks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from embedded import cli, doctor, java, memory, runs, status
from embedded.doctor import Check
from embedded.memory import check_memory
from embedded.stack import Stack
from trimtab.errors import Missing
from trimtab.messages import FleetSpec


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    return tmp_path


def test_too_little_memory_is_refused_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Missing, match=r"GB of memory are free and the stack needs 9000\.0 GB"):
        check_memory(9_000_000_000_000)
    monkeypatch.setenv("TRIMTAB_EMBEDDED_MEMORY_NEEDED_BYTES", "9000000000000")
    with pytest.raises(Missing, match="TRIMTAB_EMBEDDED_MEMORY_NEEDED_BYTES"):
        check_memory()
    (check,) = _only("memory")
    assert check.verdict == "missing"


def _only(name: str) -> list[Check]:
    chosen = [check for check in doctor.CHECKS if check.__name__ == f"_{name}"]
    assert len(chosen) == 1
    original, doctor.CHECKS = doctor.CHECKS, tuple(chosen)
    try:
        return list(doctor.diagnose())
    finally:
        doctor.CHECKS = original


def test_python_disk_and_ports_are_fine_here() -> None:
    for name in ("python", "disk", "ports"):
        assert all(check.verdict == "ok" for check in _only(name)), name


def _pin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(java, "lock", lambda path=None: {"demo": {"org.example:thing:1.0": hashlib.sha256(content).hexdigest()}})


def _jar(cache: Path) -> Path:
    jar = cache / "maven" / "org" / "example" / "thing" / "1.0" / "thing-1.0.jar"
    jar.parent.mkdir(parents=True)
    return jar


def test_jars_with_the_right_hash_are_ok(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pin(monkeypatch, b"good")
    _jar(cache).write_bytes(b"good")
    (check,) = _only("jars")
    assert (check.verdict, check.found) == ("ok", "1 jars with the pinned hashes")


def test_a_jar_with_another_hash_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pin(monkeypatch, b"good")
    _jar(cache).write_bytes(b"evil")
    (check,) = _only("jars")
    assert check.verdict == "warning"
    assert "org.example:thing:1.0" in check.found


def test_a_jar_that_cannot_be_had_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    _pin(monkeypatch, b"good")

    def unreachable(repository: Path, coordinate: str) -> None:
        raise Missing(f"{coordinate} could not be fetched")

    monkeypatch.setattr(java, "_fetch", unreachable)
    (check,) = _only("jars")
    assert check.verdict == "missing"
    assert "could not be fetched" in check.found
    assert check.advice


def test_a_program_that_does_not_start_is_missing(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho cannot open shared object file >&2\nexit 127\n")
    broken.chmod(0o755)
    check = doctor._starts("broken", [str(broken)], "Reinstall it.")
    assert (check.verdict, check.found, check.advice) == ("missing", "cannot open shared object file", "Reinstall it.")
    assert doctor._starts("absent", [str(tmp_path / "absent")], "Install it.").verdict == "missing"


@pytest.mark.parametrize(("verdict", "code"), [("ok", 0), ("warning", 0), ("missing", 1)])
def test_the_exit_code_says_whether_something_needed_is_missing(
    verdict: doctor.Verdict, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda: iter([Check(name="thing", verdict=verdict, found="x", advice="y")]))
    answer = CliRunner().invoke(cli.doctor, ["--json"])
    assert answer.exit_code == code
    assert json.loads(answer.stdout)["fit"] is (code == 0)
    assert CliRunner().invoke(cli.doctor).exit_code == code


def test_running_stacks_are_found_and_dead_ones_forgotten(cache: Path) -> None:
    path = runs.register(cache / "run", "intent", 100.0, {"host": "http://127.0.0.1:1"})
    second = runs.register(cache / "run2", "intent", 200.0, {})
    assert [run.folder for run in runs.running()] == [str(cache / "run"), str(cache / "run2")]
    dead = msgspec.json.decode(path.read_bytes())
    (path.parent / "dead.json").write_bytes(msgspec.json.encode(dead | {"pid_started": 1.0}))
    (path.parent / "broken.json").write_text("{")
    assert len(runs.running()) == 2
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, second.name])
    runs.forget(path)
    assert [run.folder for run in runs.running()] == [str(cache / "run2")]


def test_a_folder_belongs_to_one_stack_at_a_time(tmp_path: Path) -> None:
    mine = runs.own(tmp_path)
    with pytest.raises(Missing, match=r"is in use by another stack"):
        runs.own(tmp_path)
    stack = Stack(tmp_path, FleetSpec(fleet="intent", model="intent", version=1, capacity_per_replica=30.0), seed=1)
    with pytest.raises(Missing, match=r"is in use by another stack"):
        stack.start()
    stack.stop()  # takes nothing of the other one's
    with pytest.raises(Missing, match=r"is in use by another stack"):
        runs.own(tmp_path)
    mine.release()
    runs.own(tmp_path).release()


def test_too_little_memory_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_EMBEDDED_MEMORY_NEEDED_BYTES", "9000000000000")
    stack = Stack(tmp_path, FleetSpec(fleet="intent", model="intent", version=1, capacity_per_replica=30.0), seed=1)
    with pytest.raises(Missing, match="GB of memory are free"):
        stack.start()
    assert list(tmp_path.iterdir()) == []


def test_status_says_so_when_nothing_runs() -> None:
    assert "No stack runs" in CliRunner().invoke(cli.status).stdout
    assert json.loads(CliRunner().invoke(cli.status, ["--json"]).stdout) == []


def test_status_of_a_stack_that_does_not_answer_says_what_is_wrong(cache: Path) -> None:
    runs.register(cache / "run", "intent", 100.0, {"host": "http://127.0.0.1:9"})
    (found,) = status.statuses()
    assert found.state is None
    assert len(found.problems) == 2
    assert "The fleet host does not answer" in CliRunner().invoke(cli.status).stdout


def test_a_minimum_above_the_maximum_is_refused() -> None:
    answer = CliRunner().invoke(cli.up, ["--min-replicas", "3", "--max-replicas", "2"])
    assert answer.exit_code != 0
    assert "is more than" in str(answer.exception)


def test_the_setting_has_a_default() -> None:
    assert memory.EmbeddedSettings().memory_needed_bytes == 4_000_000_000

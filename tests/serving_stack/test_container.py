"""The serving containers' programs: which version is assembled, and when a drain is over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving_stack.container.drain import MOST_SECONDS, QUIET_SECONDS, wait_until_quiet
from serving_stack.container.triton import prepare, source_of_drill
from serving_stack.export import INT8, INTENTS, TOKENIZER
from serving_stack.repository import publish, verify
from trimtab.errors import Missing, SettingsError


@pytest.fixture
def store(tmp_path: Path) -> Path:
    exported = tmp_path / "exported"
    exported.mkdir()
    for name in (INT8, TOKENIZER, INTENTS):
        (exported / name).write_text(f"content of {name}")
    for version in (1, 2):
        publish(tmp_path / "store", "intent", version, exported)
    return tmp_path / "store"


def test_a_version_of_the_store_is_served_on_all_addresses(store: Path, tmp_path: Path) -> None:
    process = prepare(store, "intent", 2, "", tmp_path / "work" / "pod")
    assert "--http-address=0.0.0.0" in process.argv
    assert "--metrics-address=0.0.0.0" in process.argv
    assert (process.folder / "repository/intent/2/model.onnx").resolve() == store / "intent" / "2" / "model.onnx"


def test_a_version_that_does_not_exist_is_refused_in_words(store: Path, tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"version 3 of model intent does not exist: .* has 1, 2"):
        prepare(store, "intent", 3, "", tmp_path / "work" / "pod")
    with pytest.raises(Missing, match="has none"):
        prepare(store, "other", 1, "", tmp_path / "work" / "pod")


@pytest.mark.parametrize("version", [2, 3])
def test_a_drill_is_assembled_from_the_version_or_the_newest_and_leaves_the_store_alone(
    store: Path, tmp_path: Path, version: int
) -> None:
    for _ in range(2):  # a container that starts again in its pod
        process = prepare(store, "intent", version, '{"kind":"slow","seconds":0.2}', tmp_path / "work" / "pod")
    verify(tmp_path / "work" / "store", "intent", version)
    served = process.folder / "repository/intent" / str(version)
    assert json.loads((served / "fault.json").read_text()) == {"kind": "slow", "seconds": 0.2}
    assert (served / "model.onnx").read_text() == f"content of {INT8}"
    assert not (store / "intent" / "2" / "fault.json").exists()


def test_a_drill_needs_some_version() -> None:
    assert source_of_drill([1, 2], 1) == 1
    assert source_of_drill([1, 2], 9) == 2
    assert source_of_drill([], 1) is None


@pytest.mark.parametrize("drill", ["{", "[]", '{"kind":"slow"}', '{"kind":"odd"}'])
def test_a_drill_that_is_no_fault_is_refused(store: Path, tmp_path: Path, drill: str) -> None:
    with pytest.raises(SettingsError, match="TRIMTAB_DRILL is not a fault"):
        prepare(store, "intent", 1, drill, tmp_path / "work" / "pod")


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_a_drain_ends_when_nothing_new_comes_and_nothing_is_pending() -> None:
    clock = Clock()
    # Requests come until 2 s, one is pending until 4 s.
    done = wait_until_quiet(lambda: (min(clock.time, 2.0) * 10, float(clock.time < 4.0)), clock.now, clock.sleep)
    assert done
    assert 4.0 + QUIET_SECONDS - 0.5 < clock.time < 4.0 + QUIET_SECONDS + 0.5


def test_a_drain_never_takes_longer_than_it_may() -> None:
    clock = Clock()
    assert wait_until_quiet(lambda: (clock.time, 1.0), clock.now, clock.sleep)
    assert clock.time == pytest.approx(MOST_SECONDS, abs=0.3)


def test_a_replica_that_hangs_is_not_waited_for() -> None:
    clock = Clock()
    assert not wait_until_quiet(lambda: None, clock.now, clock.sleep)
    assert clock.time < 1.0

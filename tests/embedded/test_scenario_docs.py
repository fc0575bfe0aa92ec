"""docs/scenarios.md against the reader it describes: its examples are right, and it names everything that may be said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from embedded import scenario as scenarios
from embedded import timeline
from embedded.events import (
    EventKind,
    Release,
    ReplicaFault,
    ReplicaFaultKind,
    Surge,
    TelemetryOutage,
    VersionFault,
    VersionFaultKind,
)
from embedded.expectations import DecisionExpected, FindingExpected, NeverExpected
from embedded.scenario import Fleet, Replicas, Scenario, Segment, SloPart
from trimtab.errors import SettingsError
from trimtab.messages import Action, FindingKind

TEXT = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def read(tmp_path: Path, text: str) -> Scenario:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return scenarios.read(file)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_example_is_a_scenario(tmp_path: Path, block: str) -> None:
    assert read(tmp_path, block).expect


def test_the_examples_show_every_event_fault_and_expectation(tmp_path: Path) -> None:
    played = [read(tmp_path, block) for block in BLOCKS]
    events = [event for scenario in played for event in scenario.events]
    faults = {event.release.fault.kind for event in events if event.release and event.release.fault}
    assert {event.kind for event in events} == set(get_args(EventKind))
    assert faults == set(get_args(VersionFaultKind))
    assert {event.replica_fault.kind for event in events if event.replica_fault} == set(get_args(ReplicaFaultKind))
    assert len({type(expected) for scenario in played for expected in scenario.expect}) == 6


def test_every_key_and_word_is_in_the_text() -> None:
    models = (
        Scenario, Fleet, Replicas, SloPart, Segment, Surge, Release, VersionFault, ReplicaFault, TelemetryOutage,
        DecisionExpected, FindingExpected, NeverExpected,
    )  # fmt: skip
    keys = {field.alias or name for model in models for name, field in model.model_fields.items()}
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", TEXT))))
    assert keys - words == set()
    for kinds in (EventKind, VersionFaultKind, ReplicaFaultKind, Action, FindingKind):
        assert set(get_args(kinds)) - words == set()


def test_the_defaults_are_those_in_the_text(tmp_path: Path) -> None:
    least = read(tmp_path, next(block for block in BLOCKS if "name: no-replica" in block))
    assert (least.seed, least.warmup, least.fleet.version, least.fleet.slo.p99, least.fleet.slo.errors) == (
        1,
        45.0,
        1,
        0.25,
        0.01,
    )
    evening = read(tmp_path, next(block for block in BLOCKS if "name: evening" in block))
    assert evening.capacity == pytest.approx(1.5 * 15 / 1)


def test_the_error_in_the_text_is_what_is_said(tmp_path: Path) -> None:
    said = re.search(r"mine\.yaml:\d+: events\.0\.at: (.*)", TEXT)
    assert said is not None
    with pytest.raises(SettingsError, match=re.escape(said[1])):
        read(tmp_path, scenarios.shipped()["tour"].read_text().replace("at: 70s", "at: 70"))


@pytest.mark.parametrize(
    ("old", "new"),
    [("by: 200ms", "by: 61s"), ("kind: slow, by: 200ms", "kind: failing, share: 0%"), ("kind: hang", "kind: slow, by: 2m")],
)
def test_a_fault_that_the_served_model_would_not_take_is_refused_at_once(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(SettingsError, match="mine.yaml:1[01]: "):
        read(tmp_path, scenarios.shipped()["tour"].read_text().replace(old, new, 1))


def test_events_may_stand_in_any_order(tmp_path: Path) -> None:
    text = """
name: order
duration: 60s
fleet: {model: intent, replicas: {min: 1, max: 2}}
traffic: [{at: 0s, rate: 10/s}]
events: [{at: 40s, surge: {factor: 2, for: 5s}}, {at: 10s, surge: {factor: 3, for: 5s}}]
expect: [{decision: scale, of: surge}]
"""
    assert [(i, event.at) for i, event in timeline.concerned(read(tmp_path, text), "surge")] == [(1, 10.0), (0, 40.0)]

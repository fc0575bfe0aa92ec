"""What a ModelFleet means at a moment: windows, bounds, releases, freezes, withdrawals. No cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.memory import PolicyMemory
from autoscaler.operator.api import Freeze, ModelFleetSpec, Override, ScheduleEntry
from autoscaler.operator.fleet import Fleet, read
from autoscaler.operator.meaning import meaning, settings_for
from autoscaler.operator.windows import bounds, holds
from autoscaler.rollout import Rollout
from autoscaler.settings import AutoscaleSettings
from trimtab.errors import SettingsError
from trimtab.messages import FleetSpec


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def fleet(annotations: dict[str, str] | None = None, **spec: Any) -> Fleet:
    given = {"model": "intent", "capacityPerReplica": 40, **spec}
    meta = {"namespace": "prod", "name": "intent", "uid": "u", "generation": 3, "annotations": annotations or {}}
    return read({"metadata": meta, "spec": given})


def remembered(version: int, time: float, **rollout: Any) -> PolicyMemory:
    old = FleetSpec(fleet="prod_intent", model="intent", version=version, capacity_per_replica=40, time=time)
    return PolicyMemory(spec=old, rollout=Rollout(**{"stable": version, **rollout}))


@pytest.mark.parametrize(
    ("window", "moment", "expected"),
    [
        ({}, "2026-11-24T00:00:00", True),
        ({"from_": "08:00", "to": "20:00"}, "2026-11-24T07:59:59", False),
        ({"from_": "08:00", "to": "20:00"}, "2026-11-24T08:00:00", True),
        ({"from_": "08:00", "to": "20:00"}, "2026-11-24T20:00:00", False),
        ({"days": ["Tue"]}, "2026-11-24T12:00:00", True),
        ({"days": ["Wed"]}, "2026-11-24T12:00:00", False),
        ({"days": ["Fri"], "from_": "22:00", "to": "06:00"}, "2026-11-28T05:59:00", True),
        ({"days": ["Fri"], "from_": "22:00", "to": "06:00"}, "2026-11-27T05:59:00", False),
        ({"days": ["Fri"], "from_": "22:00", "to": "06:00"}, "2026-11-28T22:30:00", False),
        ({"from_": "09:00", "to": "10:00", "time_zone": "Europe/Berlin"}, "2026-07-01T07:30:00", True),
        ({"from_": "09:00", "to": "10:00", "time_zone": "Europe/Berlin"}, "2026-12-01T07:30:00", False),
        ({"start": datetime(2026, 12, 20, tzinfo=UTC)}, "2026-12-19T23:59:59", False),
        ({"end": datetime(2026, 12, 27)}, "2026-12-27T00:00:00", False),
    ],
)
def test_windows(window: dict[str, Any], moment: str, expected: bool) -> None:
    assert holds(Freeze(**window), at(moment)) is expected


def test_a_time_zone_that_does_not_exist_is_told_in_words() -> None:
    for name in ("Atlantis/Capital", "../etc/passwd", "\0", ""):
        with pytest.raises(SettingsError, match="no time zone"):
            holds(Freeze(time_zone=name), 0.0)


def test_bounds_by_schedule_and_override() -> None:
    spec = fleet(replicas={"min": 2, "max": 6}).spec
    night = ScheduleEntry(from_="22:00", to="06:00", min_replicas=1, max_replicas=3)
    now = at("2026-11-24T23:00:00")
    changed = spec.model_copy(update={"schedule": [night]})
    assert bounds(spec, now) == (2, 6) and bounds(changed, now) == (1, 3) and bounds(changed, now + 12 * 3600) == (2, 6)
    asked = spec.model_copy(update={"override": Override(replicas=9, until=datetime.fromtimestamp(now + 60, UTC))})
    assert bounds(asked, now) == (6, 6) and bounds(asked, now + 61) == (2, 6)


COUNT = st.integers(1, 1000)


@given(COUNT, COUNT, st.one_of(st.none(), COUNT), st.one_of(st.none(), COUNT))
def test_bounds_are_always_in_order(least: int, most: int, low: int | None, high: int | None) -> None:
    spec = fleet(replicas={"min": least, "max": most}).spec
    spec = spec.model_copy(update={"schedule": [ScheduleEntry(min_replicas=low, max_replicas=high)]})
    found = bounds(spec, 0.0)
    assert 1 <= found[0] <= found[1]


def test_only_a_release_moves_the_time_of_the_spec() -> None:
    memory = remembered(2, 1000.0)
    assert meaning(fleet(version=2, replicas={"max": 9}), memory, 2000.0).spec.time == 1000.0
    assert meaning(fleet(version=2, paused=True), memory, 2000.0).spec.time == 1000.0
    assert meaning(fleet(version=3), memory, 2000.0).spec.time == 2000.0
    assert meaning(fleet(version=3), memory, 500.0).spec.time > 1000.0  # a clock that went back
    again = fleet({"trimtab.dev/released-at": "1970-01-01T00:30:00Z"}, version=2)
    assert meaning(again, memory, 2000.0).spec.time == 1800.0
    assert meaning(again, memory, 1500.0).spec.time == 1000.0  # not before it is so
    assert meaning(again, remembered(2, 1900.0), 2000.0).spec.time == 1900.0
    assert meaning(fleet({"trimtab.dev/released-at": "soon"}, version=2), memory, 2000.0).spec.time == 1000.0


def test_a_freeze_keeps_releases_waiting_and_nothing_else() -> None:
    memory = remembered(2, 1000.0, stable=2, previous=1)
    frozen: dict[str, Any] = {"freezes": [{"name": "holidays"}]}
    held = meaning(fleet(version=3, replicas={"max": 9}, **frozen), memory, 2000.0)
    assert (held.spec.version, held.waits, held.freeze, held.spec.max_replicas) == (2, 3, "holidays", 9)
    assert meaning(fleet(version=1, **frozen), memory, 2000.0).spec.version == 1  # the way back is open
    assert meaning(fleet(version=3, **frozen), PolicyMemory(), 2000.0).spec.version == 3  # a fleet may begin


def test_a_withdrawn_version_is_replaced_by_the_warm_one() -> None:
    trial = remembered(2, 1000.0, stable=1, candidate=2)
    assert meaning(fleet(version=2), trial, 2000.0, withdrawn=2).spec.version == 1
    guard = remembered(2, 1000.0, stable=2, previous=1)
    assert meaning(fleet(version=2), guard, 2000.0, withdrawn=2).spec.version == 1
    alone = remembered(2, 1000.0)
    assert meaning(fleet(version=2), alone, 2000.0, withdrawn=2).spec.version == 2


def test_the_policys_settings_come_from_the_fleet() -> None:
    spec = fleet(
        rollout={"steps": [5, 25], "guardSeconds": 60},
        remediation={"quarantine": False, "maxUnavailablePercent": 50},
        scaling={"targetUtilisationPercent": 60},
    ).spec
    found = settings_for(spec, AutoscaleSettings())
    assert (found.canary_weights, found.guard_seconds, found.target_utilisation) == ([5, 25], 60.0, 0.6)
    assert (found.quarantines_per_window, found.quarantine_share, found.rollout_extra_ratio) == (0, 0.5, 0.75)
    assert AutoscaleSettings.model_validate(found.model_dump()).canary_weights == [5, 25]  # it would be valid in a file, too


@pytest.mark.parametrize(
    "spec", [{"capacityPerReplica": 0}, {"replicas": {"min": "many"}}, {"version": -1}, {"freezes": [{"from": "8"}]}]
)
def test_a_spec_that_cannot_be_meant_is_told_with_its_field(spec: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"spec\."):
        fleet(**spec)


def test_fields_of_a_newer_definition_are_passed_over() -> None:
    assert fleet(fromTheFuture={"x": 1}, replicas={"min": 1, "max": 2, "burst": 9}).spec.replicas.max == 2


def test_a_name_that_would_be_too_long_for_its_objects_is_refused() -> None:
    meta = {"namespace": "n" * 40, "name": "f" * 30}
    with pytest.raises(SettingsError, match="choose a shorter name"):
        read({"metadata": meta, "spec": {"model": "intent", "capacityPerReplica": 1}})
    assert isinstance(fleet().spec, ModelFleetSpec)

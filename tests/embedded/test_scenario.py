"""Scenario files: what may be said, and how what may not is refused."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from embedded import scenario as scenarios
from embedded.expectations import DecisionExpected, FindingExpected, NeverExpected, ReplicasExpected
from embedded.units import Duration, Rate, Share
from trimtab.errors import SettingsError

TOUR = scenarios.shipped()["tour"].read_text()
DURATION, RATE, SHARE = TypeAdapter(Duration), TypeAdapter(Rate), TypeAdapter(Share)


def read(tmp_path: Path, text: str) -> scenarios.Scenario:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return scenarios.read(file)


def refused(tmp_path: Path, old: str, new: str) -> str:
    assert old in TOUR
    with pytest.raises(SettingsError) as error:
        read(tmp_path, TOUR.replace(old, new, 1))
    return str(error.value)


@pytest.mark.parametrize("name", sorted(scenarios.shipped()))
def test_shipped_scenarios_are_right_and_say_what_they_show(name: str) -> None:
    file = scenarios.find(name)
    assert scenarios.read(file).name == name
    assert len(scenarios.about(file)) > 20


def test_the_five_scenarios_ship() -> None:
    assert set(scenarios.shipped()) >= {"tour", "healthy", "bad-answers", "surge-and-fault", "gpu"}


def test_tour_as_promised() -> None:
    tour = scenarios.read(scenarios.find("tour"))
    assert (tour.seed, tour.duration, tour.warmup) == (7, 240.0, 45.0)
    assert [event.kind for event in tour.events] == ["surge", "release", "release", "replica_fault", "telemetry_outage"]
    assert [event.lasts for event in tour.events] == [40.0, 0.0, 0.0, 0.0, 15.0]
    fault = tour.events[2].release and tour.events[2].release.fault
    assert fault is not None and (fault.kind, fault.by) == ("slow", 0.2)
    assert isinstance(tour.expect[0], DecisionExpected) and tour.expect[0].direction == "up"
    assert isinstance(tour.expect[4], NeverExpected) and tour.expect[4].during == "telemetry_outage"


def test_capacity_is_the_initial_traffic_with_a_third_to_spare_unless_given(tmp_path: Path) -> None:
    assert scenarios.read(scenarios.find("tour")).spec().capacity_per_replica == pytest.approx(30.0)
    given_ = read(tmp_path, TOUR.replace("model: intent,", "model: intent, version: 4, capacity: 55/s,"))
    assert (given_.spec().capacity_per_replica, given_.spec().version) == (55.0, 4)
    assert given_.spec().slo.p99_seconds == 0.25 and given_.spec().slo.error_ratio == pytest.approx(0.01)


def test_every_form_of_expectation(tmp_path: Path) -> None:
    more = """
  - {finding: telemetry_gap, within: 10s, of: telemetry_outage}
  - {never: rollback, version: 2, after: surge}
  - {p99: {at_most: 500ms}}
  - {replicas: {at_most: 4, during: surge}}
"""
    found = read(tmp_path, TOUR.rstrip("\n") + more).expect[-4:]
    assert isinstance(found[0], FindingExpected) and isinstance(found[1], NeverExpected)
    assert found[1].after == "surge" and isinstance(found[3], ReplicasExpected)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("seed: 7", "sed: 7", 3, "unknown key"),
        ("duration: 240s", "duration: 240", 4, "240s, 4m or 250ms"),
        ("duration: 240s", "duration: 240 parsecs", 4, "not a duration"),
        ("p99: 250ms", "p99: 0.25", 5, "not a duration"),
        ("errors: 1%", "errors: 101%", 5, "less than or equal to 1"),
        ("min: 1, max: 4", "min: 5, max: 4", 5, "min (5) is above max (4)"),
        ("max: 4", "max: yes", 5, "valid integer"),
        ("rate: 20/s", "rate: 20", 6, "not a rate"),
        ("trace: azure-conv", "trace: azure", 6, "azure-conv"),
        ("trace: azure-conv", "trace: azure-conv, arrivals: poisson", 6, "not both"),
        ("at: 0s, trace", "at: 3s, trace", 6, "must start at 0s"),
        ("factor: 4", "factor: .nan", 8, "factor"),
        ("factor: 4", "facter: 4", 8, "unknown key"),
        ("surge: {factor: 4, for: 40s}", "earthquake: {}", 8, "unknown key"),
        ("at: 70s, surge: {factor: 4, for: 40s}", "at: 70s", 8, "this has none"),
        ("version: 2}}", "version: 2}, replica_fault: {kind: hang}}", 9, "release and replica_fault"),
        ("release: {version: 2}", "release: {version: 1}", 9, "already runs"),
        ("kind: slow, by: 200ms", "kind: slow", 10, "needs 'by'"),
        ("kind: slow, by: 200ms", "kind: wrong, by: 200ms, share: 3%", 10, "takes no 'by'"),
        ("kind: slow, by: 200ms", "kind: evil", 10, "slow"),
        ("kind: hang", "kind: hang, by: 3s", 11, "takes no 'by'"),
        ("at: 215s", "at: 240s", 12, "not before the end"),
        ("decision: promote", "decison: promote", 15, "one of decision, finding, never"),
        ("decision: promote", "decision: promot", 15, "promote"),
        ("decision: promote, version: 2", "decision: promote, version: 8", 15, "never released"),
        ("decision: promote", "decision: promote, direction: up", 15, "only scale has a direction"),
        ("during: telemetry_outage", "during: release", 18, "does not last"),
        ("at_most: 0.5%", "at_most: 0.5", 19, "not a percentage"),
    ],
)
def test_what_is_wrong_is_refused_with_file_and_line(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    said = refused(tmp_path, old, new)
    assert f"{tmp_path}/mine.yaml:{line}: " in said
    assert words in said


def test_an_expectation_of_an_event_that_is_not_there_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, "  - {at: 190s, replica_fault: {kind: hang}}\n", "")
    assert "mine.yaml:16: expect.3.of: of: there is no replica_fault among the events" in said


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        read(tmp_path, TOUR.replace("seed: 7", "sed: 7").replace("factor: 4", "factor: x"))
    assert len(str(error.value).splitlines()) == 2


def test_a_scenario_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(SettingsError, match="tour"):
        scenarios.find("no-such-scenario")


@pytest.mark.parametrize("text", ["", "[]", "3", "name: x", "{", "a: &a [*a]", "events: {}\nexpect: 3", "name: tour\nname: tour"])
def test_files_that_are_something_else_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"mine\.yaml"):
        read(tmp_path, text)


@settings(deadline=None)
@given(st.text(max_size=30) | st.integers() | st.floats() | st.none() | st.booleans() | st.lists(st.integers(), max_size=2))
def test_quantities_are_understood_or_refused_and_nothing_else(value: object) -> None:
    for adapter in (DURATION, RATE, SHARE):
        try:
            number = adapter.validate_python(value)
        except ValidationError:
            continue
        assert isinstance(value, str) and 0 <= number < float("inf")


@settings(deadline=None)
@given(st.floats(min_value=0.001, max_value=100_000).map(lambda x: round(x, 3)))
def test_durations_mean_the_same_in_every_unit(seconds: float) -> None:
    said = DURATION.validate_python(f"{seconds:.3f}s")
    assert said == pytest.approx(seconds)
    assert DURATION.validate_python(f"{seconds * 1000:.0f}ms") == pytest.approx(seconds, abs=0.001)


leaves = st.none() | st.booleans() | st.integers(-5, 300) | st.sampled_from(["4m", "20/s", "1%", "surge", "scale", "up", "x"])
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["at", "surge", "factor", "for", "decision", "never", "of", "version", "fault", "kind"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(where=st.sampled_from(["traffic", "events", "expect", "fleet", "duration"]), what=trees)
def test_any_other_content_is_understood_or_refused_in_words(tmp_path: Path, where: str, what: object) -> None:
    import yaml

    data = yaml.safe_load(TOUR)
    data[where] = what
    try:
        read(tmp_path, yaml.safe_dump(data))
    except SettingsError as error:
        assert "mine.yaml:" in str(error)

"""Judging a run: which expectations held, and the figures, from a recording and the client's requests."""

from collections.abc import Sequence

import msgspec
import pytest

from embedded import scenario as scenarios
from embedded.expectations import Expectation
from embedded.figures import figures, first_bad
from embedded.judge import Verdict, judge, words
from embedded.recording import Recording, Request
from embedded.scenario import Scenario
from embedded.timeline import acts, describe
from trimtab.messages import Decision, Finding, FleetState, Message, PoolState, ReplicaState

ZERO = 1_700_000_000.0

SCENARIO = {
    "name": "made-up",
    "duration": "200s",
    "fleet": {"model": "intent", "replicas": {"min": 1, "max": 4}},
    "traffic": [{"at": "0s", "rate": "20/s"}],
    "events": [
        {"at": "20s", "surge": {"factor": 4, "for": "20s"}},
        {"at": "60s", "release": {"version": 2}},
        {"at": "100s", "release": {"version": 3, "fault": {"kind": "slow", "by": "200ms"}}},
        {"at": "130s", "replica_fault": {"kind": "hang"}},
        {"at": "160s", "telemetry_outage": {"for": "15s"}},
    ],
}


def made(*expect: dict[str, object]) -> Scenario:
    made_up = Scenario.model_validate({**SCENARIO, "expect": list(expect) or [{"never": "promote", "version": 3}]})
    assert list(scenarios.contradictions(made_up)) == []
    return made_up


def decision(at: float, action: str, **more: object) -> Decision:
    fields = {
        "id": f"{action}-{at}",
        "fleet": "intent",
        "time": ZERO + at,
        "action": action,
        "outcome": "applied",
        "reason": "because",
    }
    return Decision(**{**fields, **more})  # type: ignore[arg-type]


def scale(at: float, before: int, after: int, **more: object) -> Decision:
    return decision(at, "scale", from_={"replicas": before}, to={"replicas": after}, **more)


def finding(at: float, kind: str, state: str = "firing") -> Finding:
    return Finding(
        id=f"{kind}-{at}", fleet="intent", kind=kind, severity="warning", onset=ZERO + at, time=ZERO + at, state=state,  # type: ignore[arg-type]
        confidence=0.9, summary="so it is",
    )  # fmt: skip


def recorded(scenario: Scenario, *messages: Message) -> Recording:
    recording = Recording(scenario.spec(), zero=ZERO)
    for message in messages:
        recording.add(message)
    return recording


def verdict(expected: dict[str, object], *messages: Message, requests: Sequence[Request] | None = None) -> Verdict:
    scenario = made(expected)
    return judge(scenario, recorded(scenario, *messages), requests)[0]


UP = {"decision": "scale", "direction": "up", "within": "15s", "of": "surge"}


def test_a_decision_in_time_holds_and_is_measured_from_the_event() -> None:
    held = verdict(UP, scale(23.5, 1, 3))
    assert held.held and held.value == pytest.approx(3.5)
    assert held.measured == "came after 3.5 s" and held.expectation == "scale up within 15 s of the surge"


@pytest.mark.parametrize(
    "message",
    [
        scale(36, 1, 3),
        scale(19, 1, 3),
        scale(23, 3, 1),
        scale(23, 1, 3, outcome="refused"),
        scale(23, 1, 3, outcome="failed"),
        scale(23, 1, 3, dry_run=True),
        scale(23, 1, 3, fleet="other"),
        decision(23, "scale"),
        decision(23, "promote", version=2),
    ],
)
def test_what_is_late_early_other_refused_or_dry_does_not_count(message: Decision) -> None:
    assert not verdict(UP, message).held


def test_a_late_decision_says_how_late() -> None:
    late = verdict(UP, scale(36, 1, 3))
    assert "16.0 s after the surge at 20 s, too late" in late.measured and late.value == pytest.approx(16.0)


def test_without_an_event_it_may_come_at_any_time_but_not_in_the_warm_up() -> None:
    assert verdict({"decision": "promote", "version": 2}, decision(90, "promote", version=2)).held
    assert not verdict({"decision": "promote", "version": 2}, decision(90, "promote", version=3)).held
    assert not verdict({"decision": "promote", "version": 2}, decision(-5, "promote", version=2)).held


def test_of_release_with_a_version_means_the_release_of_that_version() -> None:
    expected: dict[str, object] = {"decision": "rollback", "version": 3, "within": "20s", "of": "release"}
    held = verdict(expected, decision(104, "rollback", version=3))
    assert held.held and held.value == pytest.approx(4.0)


def test_each_event_of_the_kind_must_be_met_before_the_next() -> None:
    expected: dict[str, object] = {"decision": "release", "within": "5s", "of": "release"}
    assert verdict(expected, decision(61, "release", version=2), decision(102, "release", version=3)).held
    missed = verdict(expected, decision(61, "release", version=2))
    assert not missed.held and "the release at 100 s" in missed.measured


def test_time_counts_from_when_the_event_really_happened() -> None:
    scenario = made(UP)
    recording = Recording(scenario.spec(), zero=ZERO)
    recording.note(ZERO + 22, "scenario", "surge", event=0, edge="begin")
    recording.add(scale(23.5, 1, 3))
    assert judge(scenario, recording, None)[0].value == pytest.approx(1.5)


def test_findings_are_expected_as_decisions_are() -> None:
    expected: dict[str, object] = {"finding": "replica_fault", "within": "10s", "of": "replica_fault"}
    assert verdict(expected, finding(133, "replica_fault")).held
    assert not verdict(expected, finding(133, "gpu_fault")).held
    assert not verdict(expected, finding(133, "replica_fault", state="resolved")).held
    before = finding(50, "replica_fault")
    again = msgspec.structs.replace(before, time=ZERO + 133)
    assert not verdict(expected, before, again).held  # it was there before the fault, and only goes on


@pytest.mark.parametrize(("at", "held"), [(159.9, True), (160.1, False), (174.9, False), (175.1, True)])
def test_never_during_looks_at_the_lasting_event_only(at: float, held: bool) -> None:
    expected: dict[str, object] = {"never": "scale", "direction": "down", "during": "telemetry_outage"}
    assert verdict(expected, scale(at, 3, 1)).held is held
    assert verdict(expected, scale(at, 1, 3)).held
    assert verdict(expected, scale(at, 3, 1, outcome="refused")).held


def test_never_after_and_never_at_all() -> None:
    assert verdict({"never": "rollback", "after": "telemetry_outage"}, decision(104, "rollback", version=3)).held
    assert not verdict({"never": "rollback", "after": "telemetry_outage"}, decision(190, "rollback", version=3)).held
    missed = verdict({"never": "rollback"}, decision(104, "rollback", version=3, reason="it was slow"))
    assert not missed.held and "104.0 s: it was slow" in missed.measured
    assert verdict({"never": "rollback", "version": 2}, decision(104, "rollback", version=3)).held


def test_hold_counts_although_it_applies_nothing() -> None:
    assert verdict({"decision": "hold", "within": "5s", "of": "telemetry_outage"}, decision(162, "hold", outcome="refused")).held


def test_replicas_asked_for() -> None:
    assert verdict({"replicas": {"at_most": 3}}, scale(23, 1, 3)).held
    assert not verdict({"replicas": {"at_most": 3}}, scale(23, 1, 3), scale(50, 3, 4)).held
    assert verdict({"replicas": {"at_most": 3, "during": "surge"}}, scale(23, 1, 3), scale(50, 3, 4)).held


def client(at: float, outcome: str = "ok", latency: float = 0.01, **more: int) -> Request:
    return Request(time=ZERO + at, latency=latency, outcome=outcome, **{"version": 1, **more})  # type: ignore[arg-type]


def test_client_errors_and_latency_are_judged_from_time_zero_on() -> None:
    requests = [client(-5, "error"), *(client(t) for t in range(99)), client(150, "error", latency=20.0)]
    assert verdict({"client_errors": {"at_most": "1%"}}, requests=requests).held
    missed = verdict({"client_errors": {"at_most": "0.9%"}}, requests=requests)
    assert not missed.held and missed.value == pytest.approx(0.01)
    assert verdict({"p99": {"at_most": "10ms"}}, requests=requests).held
    assert not verdict({"p99": {"at_most": "9ms"}}, requests=requests).held


@pytest.mark.parametrize("requests", [None, []])
def test_unknown_is_not_held(requests: list[Request] | None) -> None:
    unknown = verdict({"client_errors": {"at_most": "100%"}}, requests=requests)
    assert not unknown.held and "unknown" in unknown.measured


def state(at: float, *pools: PoolState) -> FleetState:
    return FleetState(fleet="intent", time=ZERO + at, pools=list(pools))


def pool(version: int, weight: int, *names: str, out: Sequence[str] = ()) -> PoolState:
    replicas = [ReplicaState(name=n, version=version, phase="ready", since=ZERO, in_traffic=n not in out) for n in names]
    return PoolState(version=version, role="stable", weight=weight, wanted=len(names), replicas=replicas)


def test_figures_count_from_cause_to_decision_and_until_it_is_seen() -> None:
    scenario = made()
    recording = recorded(
        scenario,
        scale(22, 1, 2),
        state(22, pool(1, 100, "a")),
        state(27, pool(1, 100, "a", "b")),
        decision(85, "promote", version=2),
        decision(106, "rollback", version=3),
        state(106, pool(2, 90, "c"), pool(3, 10, "d")),
        state(107, pool(2, 100, "c")),
        decision(133, "quarantine", target="c"),
        state(133, pool(2, 100, "c", "e")),
        state(134, pool(2, 100, "c", "e", out=["c"])),
    )
    requests = [client(50), client(102, version=3, latency=0.05), client(103, version=3, latency=0.21), client(104, "wrong")]
    numbers = figures(scenario, recording, requests, 3_000)
    assert numbers["scale_up_s"] == pytest.approx(2.0) and numbers["scale_up_effective_s"] == pytest.approx(7.0)
    assert numbers["promote_s"] == pytest.approx(25.0)
    assert numbers["rollback_s"] == pytest.approx(106 - 103.21) and numbers["rollback_effective_s"] == pytest.approx(107 - 103.21)
    assert numbers["quarantine_s"] == pytest.approx(3.0) and numbers["quarantine_effective_s"] == pytest.approx(4.0)
    assert numbers["client_error_ratio"] == 0 and numbers["accuracy"] == pytest.approx(0.75)
    assert numbers["peak_memory_bytes"] == 3_000 and numbers["requests"] == 4


def test_figures_that_the_run_says_nothing_about_are_none() -> None:
    quiet = Scenario.model_validate({**SCENARIO, "events": [], "expect": [{"never": "scale"}]})
    numbers = figures(quiet, recorded(quiet), None, None)
    assert {"rollback_s", "scale_up_s", "quarantine_s", "client_error_ratio", "peak_memory_bytes"} <= numbers.keys()
    assert all(value is None for name, value in numbers.items() if name not in ("decisions", "findings"))


def test_a_figure_is_none_when_one_of_several_was_missed() -> None:
    events = [{"at": f"{at}s", "replica_fault": {"kind": "hang"}} for at in (20, 80)]
    twice = Scenario.model_validate({**SCENARIO, "events": events, "expect": [{"never": "scale"}]})
    once = recorded(twice, decision(25, "quarantine", target="a"))
    assert figures(twice, once, None, None)["quarantine_s"] is None
    both = recorded(twice, decision(25, "quarantine", target="a"), decision(83, "quarantine", target="b"))
    assert figures(twice, both, None, None)["quarantine_s"] == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("fault", "bad"),
    [
        ({"kind": "slow", "by": "200ms"}, client(110, version=3, latency=0.3)),
        ({"kind": "wrong", "share": "30%"}, client(110, "wrong", version=3)),
        ({"kind": "failing", "share": "30%"}, client(110, version=2, assigned=3, attempts=2)),
        ({"kind": "crashing"}, client(110, "error", version=0, assigned=3)),
    ],
)
def test_the_first_bad_response_of_each_fault(fault: dict[str, str], bad: Request) -> None:
    event = made().events[2].model_validate({"at": "100s", "release": {"version": 3, "fault": fault}})
    assert event.release is not None
    good = [client(105, "wrong", version=2, latency=9.0), client(106, version=3), client(107, "error", assigned=2)]
    assert first_bad(good, event.release, ZERO + 100) is None
    assert first_bad([*good, bad], event.release, ZERO + 100) == pytest.approx(ZERO + 110 + bad.latency)
    assert first_bad([*good, bad], event.release, ZERO + 111) is None


def test_every_expectation_and_event_has_words() -> None:
    tour = scenarios.read(scenarios.find("tour"))
    said = [words(expected) for expected in tour.expect]
    assert said[2] == "rollback version 3 within 20 s of the release" and len(set(said)) == len(said)
    assert describe(tour.events[2]) == "version 3 is released; it is slow by 200 ms"
    assert [act.at for act in acts(tour)] == [70, 110, 120, 165, 190, 215, 230]
    more: list[Expectation] = list(
        made({"replicas": {"at_most": 3}}, {"p99": {"at_most": "1s"}}, {"finding": "gpu_fault"}).expect
    )
    assert all(words(expected) for expected in more)

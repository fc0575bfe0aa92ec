"""Grouping: one cause is one thread, whatever the order, and nothing is said twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dashboards.incident import sources
from dashboards.notify.incidents import Incidents
from dashboards.notify.settings import IncidentSettings
from trimtab.messages import Decision, Finding, IncidentUpdate, Message

Make = Callable[..., Any]


def told(*messages: Message, until: float | None = None, incidents: Incidents | None = None) -> list[IncidentUpdate]:
    incidents = incidents or Incidents(IncidentSettings())
    updates = [update for message in messages for update in incidents.add(message)]
    return updates + (incidents.tick(until) if until is not None else [])


def threads(updates: list[IncidentUpdate]) -> list[str]:
    return list(dict.fromkeys(update.incident.id for update in updates))


def happenings(updates: list[IncidentUpdate]) -> list[str]:
    return [update.happening for update in updates]


def test_finding_act_and_resolution_are_one_thread(finding: Make, decision: Make) -> None:
    updates = told(
        finding("f", 0.0), decision("d", 1.0, because=["f", "arrivals_per_second=3"]), finding("f", 9.0, state="resolved")
    )
    assert happenings(updates) == ["finding", "act", "resolved"]
    assert len(threads(updates)) == 1
    assert updates[-1].incident.state == "resolved"
    assert "rolled back version 3" in updates[1].text


def test_an_act_that_comes_before_its_finding_is_in_the_same_thread(finding: Make, decision: Make) -> None:
    updates = told(decision("d", 0.0, because=["evidence=7.3"]), finding("f", 1.0), finding("f", 9.0, state="resolved"))
    assert happenings(updates) == ["act", "finding", "resolved"]
    assert len(threads(updates)) == 1


def test_a_hold_that_is_read_before_the_finding_it_names_waits_for_it(finding: Make, decision: Make) -> None:
    hold = decision("d", 5.0, action="hold", outcome="refused", version=None, because=["gap"])
    gap = finding("gap", 4.0, kind="telemetry_gap", version=None, severity="warning")
    updates = told(hold, gap)
    assert happenings(updates) == ["refusal", "finding"]
    assert len(threads(updates)) == 1
    assert updates[-1].title == "telemetry of fleet intent"


def test_a_finding_that_is_repeated_is_said_once(finding: Make) -> None:
    updates = told(*(finding("f", float(time), summary=f"for {time} s") for time in range(0, 600, 5)))
    assert happenings(updates) == ["finding"]


def test_a_finding_that_gets_worse_is_said_again(finding: Make) -> None:
    updates = told(finding("f", 0.0, severity="warning"), finding("f", 5.0, severity="critical"), finding("f", 10.0))
    assert [update.incident.severity for update in updates] == ["warning", "critical"]


def test_other_causes_are_other_threads(finding: Make) -> None:
    sick = finding("r", 1.0, kind="replica_fault", target="intent-v2-1", version=2)
    surge = finding("s", 2.0, kind="demand_shift", version=None, severity="info")
    elsewhere = finding("e", 3.0, fleet="other")
    assert len(threads(told(finding("f", 0.0), sick, surge, elsewhere))) == 4


def test_two_findings_of_one_replica_are_one_thread_that_ends_with_the_last(finding: Make) -> None:
    gpu = finding("g", 0.0, kind="gpu_fault", target="r1", version=None)
    hang = finding("h", 1.0, kind="replica_fault", target="r1", version=2)
    over = [
        finding("g", 8.0, kind="gpu_fault", target="r1", state="resolved"),
        finding("h", 9.0, kind="replica_fault", target="r1", state="resolved"),
    ]
    updates = told(gpu, hang, *over)
    assert happenings(updates) == ["finding", "finding", "finding", "resolved"]
    assert len(threads(updates)) == 1


def test_a_fault_that_flaps_stays_in_its_thread_and_a_later_one_gets_its_own(finding: Make) -> None:
    first = [finding("f1", 0.0), finding("f1", 10.0, state="resolved")]
    soon, late = finding("f2", 60.0), finding("f3", 4000.0)
    over = finding("f2", 90.0, state="resolved")
    updates = told(*first, soon, over, late)
    assert happenings(updates) == ["finding", "resolved", "finding", "resolved", "finding"]
    assert len(threads(updates)) == 2


def test_a_second_surge_is_a_second_thread_and_scaling_back_belongs_to_the_first(finding: Make, decision: Make) -> None:
    def surge(id: str, time: float, state: str = "firing") -> Finding:
        found: Finding = finding(id, time, kind="demand_shift", version=None, severity="info", state=state)
        return found

    def scale(id: str, time: float, before: int, after: int) -> Decision:
        decided: Decision = decision(id, time, action="scale", from_={"replicas": before}, to={"replicas": after})
        return decided

    updates = told(
        surge("s1", 0.0),
        scale("up", 1.0, 2, 4),
        surge("s1", 30.0, "resolved"),
        scale("down", 60.0, 4, 2),
        scale("up2", 90.0, 2, 3),
        surge("s2", 91.0),
    )
    ids = threads(updates)
    assert [ids.index(update.incident.id) for update in updates] == [0, 0, 0, 0, 1, 1]


def test_an_act_without_a_finding_ends_when_nothing_more_happens(decision: Make) -> None:
    incidents = Incidents(IncidentSettings(settle_seconds=60))
    assert happenings(told(decision("d", 0.0), until=59.0, incidents=incidents)) == ["act"]
    (end,) = incidents.tick(1000.0)
    assert (end.happening, end.time, end.incident.state) == ("resolved", 60.0, "resolved")
    assert incidents.tick(2000.0) == []


def test_a_finding_that_is_not_heard_of_for_long_ends_without_a_claim_that_it_is_over(finding: Make) -> None:
    incidents = Incidents(IncidentSettings(stale_seconds=600))
    told(finding("f", 0.0), finding("f", 500.0), incidents=incidents)
    assert incidents.tick(1099.0) == []
    (end,) = incidents.tick(1100.0)
    assert end.happening == "resolved"
    assert "unknown" in end.text


def test_what_goes_on_is_said_again(finding: Make) -> None:
    incidents = Incidents(IncidentSettings(reminder_seconds=100, stale_seconds=1000))
    told(finding("f", 0.0), incidents=incidents)
    assert [(u.happening, u.time) for now in (50.0, 150.0, 190.0, 250.0) for u in incidents.tick(now)] == [
        ("reminder", 100.0),
        ("reminder", 200.0),
    ]


def test_a_failed_cure_is_critical_and_its_success_is_told_too(decision: Make) -> None:
    failed, done = decision("d", 0.0, outcome="failed"), decision("d", 0.0, outcome="applied")
    updates = told(failed, failed, done, done, failed)
    assert happenings(updates) == ["failure", "act"]
    assert updates[0].incident.severity == "critical"


def test_a_finding_that_is_heard_of_again_after_a_silence_goes_on_in_its_thread(finding: Make) -> None:
    incidents = Incidents(IncidentSettings(stale_seconds=600))
    updates = told(finding("f", 0.0), finding("f", 700.0), finding("f", 705.0), incidents=incidents)
    assert happenings(updates) == ["finding", "resolved", "finding"]
    assert len(threads(updates)) == 1


def test_a_restart_does_not_take_silence_for_an_end(finding: Make) -> None:
    before = Incidents(IncidentSettings())
    published = told(finding("f", 0.0), finding("f", 3500.0), incidents=before)
    after = Incidents(IncidentSettings())
    after.restore(published, 3601.0)
    assert after.tick(3602.0) == []
    assert [incident.state for incident in after.open()] == ["firing"]


def test_the_end_of_something_never_told_is_not_told(finding: Make) -> None:
    assert told(finding("f", 0.0, state="resolved")) == []


def test_a_resolved_finding_that_is_read_again_stays_resolved(finding: Make) -> None:
    begin, end = finding("f", 0.0), finding("f", 5.0, state="resolved")
    assert happenings(told(begin, end, begin, end)) == ["finding", "resolved"]


def test_a_recorded_tour_is_one_thread_per_cause() -> None:
    """Findings and decisions as a real run wrote them: warm-up, surge, good release, bad release, hang, telemetry outage."""
    records = sources.Run(Path(__file__).parent / "data" / "tour.jsonl").said()
    updates = told(*(record.message for record in records))
    assert [next(u.title for u in updates if u.incident.id == id) for id in threads(updates)] == [
        "demand on fleet intent",
        "demand on fleet intent",
        "version 2 of fleet intent",
        "version 3 of fleet intent",
        "replica intent-v2-2 of fleet intent",
        "telemetry of fleet intent",
    ]
    severe = [update for update in updates if update.incident.severity != "info"]
    assert len({update.incident.id for update in severe}) == 3  # what wakes people: the bad version, the hang, the outage


def test_a_message_from_the_future_ends_nothing_of_others(finding: Make) -> None:
    incidents = Incidents(IncidentSettings())
    incidents.add(finding("f", 1000.0), 1000.0)
    updates = incidents.add(finding("g", 1e20, version=9), 1001.0)
    assert [update.incident.subject for update in updates] == ["9"]
    assert len(incidents.open()) == 2


def test_memory_is_bounded(finding: Make, decision: Make) -> None:
    incidents = Incidents(IncidentSettings(remember_seconds=100))
    for number in range(1000):
        at = number * 200.0
        incidents.add(finding(f"f{number}", at, version=number))
        incidents.add(finding(f"f{number}", at + 1, version=number, state="resolved"))
    assert len(incidents._known) == len(incidents._heard) <= 2
    update = [u for n in range(1000) for u in incidents.add(decision(f"x{n}", 1e6 + n, version=9))][-1]
    assert len(update.incident.told) <= 200


# --- hostile and random streams

_IDS = st.sampled_from(["a", "b", "c", "=", "", "x=y", "💥", 'q"/ '])
_FLEETS = st.sampled_from(["intent", 'a fleet/with "quotes" & 🚀', "{fleet}", ""])
_TIMES = st.one_of(st.floats(-1e3, 1e6), st.sampled_from([0.0, 1.0, 60.0, 300.0]))
_FINDINGS = st.builds(
    Finding,
    id=_IDS,
    fleet=_FLEETS,
    target=st.sampled_from([None, "r1", "{name}"]),
    version=st.sampled_from([None, 1, 2]),
    kind=st.sampled_from(
        ["demand_shift", "saturation", "version_regression", "replica_fault", "gpu_fault", "dependency_fault", "telemetry_gap"]
    ),
    severity=st.sampled_from(["info", "warning", "critical"]),
    onset=_TIMES,
    time=_TIMES,
    state=st.sampled_from(["firing", "resolved"]),
    confidence=st.floats(0, 1),
    summary=st.text(max_size=20),
)
_DECISIONS = st.builds(
    Decision,
    id=_IDS.map("d{}".format),
    fleet=_FLEETS,
    time=_TIMES,
    version=st.sampled_from([None, 1, 2]),
    target=st.sampled_from([None, "r1"]),
    action=st.sampled_from(["scale", "shift_traffic", "promote", "rollback", "quarantine", "release", "hold"]),
    outcome=st.sampled_from(["applied", "refused", "failed"]),
    because=st.lists(_IDS, max_size=3),
    reason=st.text(max_size=20),
    from_=st.sampled_from([{}, {"replicas": 2}, {"replicas": None}]),
    to=st.sampled_from([{}, {"replicas": 3}, {"replicas": "x"}]),
)
QUICK = settings(deadline=None, max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
_STREAMS = st.lists(st.one_of(_FINDINGS, _DECISIONS), max_size=30)


@given(_STREAMS)
@QUICK
def test_any_stream_gives_each_update_once_and_closed_threads_have_nothing_firing(messages: list[Message]) -> None:
    updates = told(*sorted(messages, key=lambda m: m.time))  # type: ignore[attr-defined]
    assert len({update.id for update in updates}) == len(updates)
    for update in updates:
        assert (update.incident.state == "resolved") == (update.incident.resolved is not None)
        assert not (update.incident.state == "resolved" and update.incident.firing)
    for id in threads(updates):
        numbers = [update.incident.updates for update in updates if update.incident.id == id]
        assert numbers == list(range(1, len(numbers) + 1))


@given(_STREAMS, st.data())
@QUICK
def test_a_restart_anywhere_with_some_records_read_again_says_the_same(messages: list[Message], data: st.DataObject) -> None:
    """Kill after any record, restored from what was published, and any number of the last records come once more."""
    messages = [m for m in messages if isinstance(m, Finding | Decision)]
    messages.sort(key=lambda m: m.time)  # type: ignore[attr-defined]
    messages = _once_applied(messages)
    # When a finding was last repeated is not published, so staleness alone may come later after a restart.
    limits = IncidentSettings(stale_seconds=1e9)
    whole = [update.id for update in told(*messages, incidents=Incidents(limits))]
    cut = data.draw(st.integers(0, len(messages)))
    back = data.draw(st.integers(0, cut))
    before = told(*messages[:cut], incidents=Incidents(limits))
    again = Incidents(limits)
    again.restore(before, 0.0)
    after = told(*messages[back:], incidents=again)
    assert [update.id for update in before] + [update.id for update in after] == whole


def _once_applied(messages: list[Message]) -> list[Message]:
    """As an autoscaler writes them: one id is one act of one fleet, which may fail at first and is over when it is applied."""
    kept: list[Message] = []
    last: dict[tuple[str, str], str] = {}
    for message in messages:
        if isinstance(message, Decision):
            if last.get((message.fleet, message.id), "failed") != "failed":
                continue
            last[message.fleet, message.id] = message.outcome
        kept.append(message)
    return kept

"""Recording a run: what is folded from the topics, and what is kept for a replay."""

import json
import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.recorder import Recorder, kept
from embedded.recording import Recording, decision_words, direction, parse_series, percentile, state_words
from trimtab.bus import Record
from trimtab.memory_bus import MemoryBus
from trimtab.messages import (
    DECISIONS,
    FINDINGS,
    FLEETS,
    SCORES,
    STATES,
    TELEMETRY,
    Decision,
    Finding,
    FleetSpec,
    FleetState,
    Message,
    PoolState,
    Role,
    Score,
    Snapshot,
)

SPEC = FleetSpec(fleet="intent", model="intent", version=1, capacity_per_replica=30.0)
DECISION = Decision(
    id="d",
    fleet="intent",
    time=105.0,
    action="scale",
    outcome="applied",
    reason="arrivals rose",
    from_={"replicas": 1},
    to={"replicas": 3},
)
FINDING = Finding(
    id="f",
    fleet="intent",
    time=104.0,
    onset=103.0,
    kind="demand_shift",
    severity="info",
    state="firing",
    confidence=0.9,
    summary="more",
)
STATE = FleetState(fleet="intent", time=106.0, pools=[PoolState(version=1, role="stable", weight=100, wanted=3)])
SCORE = Score(fleet="intent", target="gateway", time=104.0, detector="cnn_lstm", score=0.5)


def snapshot(time: float, role: Role = "app", fleet: str = "intent", **series: float) -> Snapshot:
    return Snapshot(target=role, fleet=fleet, role=role, time=time, took=0.01, up=True, series=dict(series))


def traffic(time: float, ok: float, error: float = 0, slow: float = 0) -> Snapshot:
    series: dict[str, float | None] = {
        'trimtab_traffic_requests_total{outcome="ok",version="1"}': ok,
        'trimtab_traffic_requests_total{outcome="error",version="unknown"}': error,
        'trimtab_traffic_latency_seconds_bucket{le="0.01",version="1"}': ok - slow,
        'trimtab_traffic_latency_seconds_bucket{le="0.1",version="1"}': ok,
        'trimtab_traffic_latency_seconds_bucket{le="+Inf",version="1"}': ok,
        'trimtab_traffic_latency_seconds_bucket{le="garbage",version="1"}': ok,
        "something_else": None,
    }
    return Snapshot(target="traffic", fleet="intent", role="app", time=time, took=0.01, up=True, series=series)


def recording(*messages: Message) -> Recording:
    found = Recording(SPEC, zero=100.0)
    for message in messages:
        found.add(message)
    return found


def test_everything_that_happens_is_noted_with_scenario_time_and_words() -> None:
    found = recording(FINDING, DECISION, STATE, SCORE)
    assert [(note.kind, note.at) for note in found.notes] == [("finding", 4.0), ("decision", 5.0), ("state", 6.0)]
    assert found.notes[1].words == "scale: replicas 1 → replicas 3. arrivals rose"
    assert found.notes[2].words == "version 1 (stable) 0/3 ready, 100%"
    assert found.scores == [SCORE]


def test_a_state_that_changes_nothing_is_kept_but_not_noted() -> None:
    found = recording(STATE, FleetState(fleet="intent", time=107.0, pools=STATE.pools))
    assert len(found.states) == 2 and len(found.notes) == 1


def test_a_finding_that_goes_on_is_noted_once_and_again_when_it_is_over() -> None:
    over = msgspec.structs.replace(FINDING, time=109.0, state="resolved")
    found = recording(FINDING, msgspec.structs.replace(FINDING, time=105.0), over)
    assert len(found.findings) == 3
    assert [note.words for note in found.notes] == ["demand shift. more", "demand shift is resolved. more"]


def test_other_fleets_are_left_out() -> None:
    found = recording(FleetState(fleet="other", time=107.0), snapshot(101.0, fleet="other"))
    assert not found.states and not found.notes and not found.points


def test_a_release_is_noted_and_becomes_the_wanted_fleet() -> None:
    found = recording(SPEC, FleetSpec(fleet="intent", model="intent", version=2, capacity_per_replica=30.0, time=110.0))
    assert [note.words for note in found.notes] == ["the wanted version is now 2"] and found.spec.version == 2


def test_traffic_becomes_rates_and_percentiles_over_a_few_seconds() -> None:
    found = recording(traffic(101, 10), traffic(102, 30), traffic(103, 50, error=5, slow=20))
    first, second, errors = found.points
    assert (first.version, first.requests, first.errors) == (1, 20.0, 0.0)
    assert second.requests == 20.0 and second.p50 is not None and second.p50 <= 0.01
    assert second.p99 is not None and 0.01 < second.p99 <= 0.1
    assert (errors.version, errors.errors, errors.p99) == (None, 2.5, None)


def test_a_counter_that_fell_and_a_gap_make_no_negative_and_no_stale_rates() -> None:
    found = recording(traffic(101, 100), traffic(102, 5), traffic(103, 25), traffic(160, 1000), traffic(161, 1010))
    assert [point.requests for point in found.points] == [20.0, 10.0]


def test_a_scrape_that_failed_says_nothing() -> None:
    down = Snapshot(target="traffic", fleet="intent", role="app", time=102, took=1.0, up=False, error="timed out")
    assert [p.time for p in recording(traffic(101, 10), down, traffic(103, 50)).points] == [103]


@pytest.mark.parametrize(
    ("series", "name", "labels"),
    [
        ("up", "up", {}),
        ('a_b{x="1",y="z"}', "a_b", {"x": "1", "y": "z"}),
        ('a{x="say \\"hi\\", {you}"}', "a", {"x": 'say "hi", {you}'}),
        ("not a series {", "not a series {", {}),
    ],
)
def test_series_names(series: str, name: str, labels: dict[str, str]) -> None:
    assert parse_series(series) == (name, labels)


@given(st.dictionaries(st.floats(0, 100), st.floats(0, 1e6), max_size=6), st.floats(0, 1))
@settings(deadline=None)
def test_percentiles_stay_within_the_buckets(counts: dict[float, float], share: float) -> None:
    total, cumulative = 0.0, {}
    for bound in sorted(counts):
        total += counts[bound]
        cumulative[bound] = total
    cumulative[math.inf] = total
    value = percentile(cumulative, share)
    assert (value is None) == (total <= 0)
    if value is not None:
        assert 0 <= value <= max(counts)


def test_words() -> None:
    assert direction(DECISION) == "up" and "–" not in decision_words(DECISION)
    refused = Decision(id="r", fleet="intent", time=1.0, action="hold", outcome="refused", reason="too few samples", dry_run=True)
    assert decision_words(refused) == "hold (refused) (dry run). too few samples"
    assert state_words(FleetState(fleet="intent", time=0.0)) == "no pools"


def test_the_recorder_reads_all_from_the_beginning_and_keeps_what_a_replay_needs(tmp_path: Path) -> None:
    bus = MemoryBus()
    bus.ensure_topics()
    producer = bus.producer()
    sent: list[tuple[str, Message]] = [
        (FLEETS, SPEC), (FINDINGS, FINDING), (DECISIONS, DECISION), (STATES, STATE), (SCORES, SCORE),
        (TELEMETRY, traffic(101, 10)), (TELEMETRY, snapshot(101, "gateway")), (TELEMETRY, snapshot(101, "triton")),
    ]  # fmt: skip
    for topic, message in sent:
        producer.send(topic, message)
    bus.append(DECISIONS, b"not a decision")
    producer.flush()
    recorder = Recorder(bus, SPEC, tmp_path / "records.jsonl")
    recorder.clock_starts(100.0)
    recorder.start()
    recorder.note("scenario", "it begins", event=0)
    found = recorder.stop()
    assert recorder.error is None
    assert {note.kind for note in found.notes} == {"scenario", "finding", "decision", "state"}
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_bytes().splitlines()]
    assert sorted(line["topic"] for line in lines) == sorted([FLEETS, FINDINGS, DECISIONS, STATES, TELEMETRY, TELEMETRY])
    assert {line["message"].get("role") for line in lines if line["topic"] == TELEMETRY} == {"app", "gateway"}
    decided = next(line for line in lines if line["topic"] == DECISIONS)
    assert decided["message"]["from"] == {"replicas": 1} and decided["offset"] == 0


def test_a_recorder_that_cannot_write_says_so_and_stops(tmp_path: Path) -> None:
    recorder = Recorder(MemoryBus(), SPEC, tmp_path / "no-such-folder" / "records.jsonl")
    recorder.start()
    found = recorder.stop()
    assert recorder.error is not None and "no-such-folder" in recorder.error
    assert found.notes[-1].words == recorder.error


@pytest.mark.parametrize(("message", "topic", "needed"), [(SCORE, SCORES, False), (FINDING, FINDINGS, True)])
def test_what_is_kept(message: Message, topic: str, needed: bool) -> None:
    assert kept(Record(topic, 0, 0, 0.0, message)) is needed

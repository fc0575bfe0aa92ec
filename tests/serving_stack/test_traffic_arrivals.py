"""Arrival times: sorted, seeded, of the planned rate, whatever the plan."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_stack.traffic import Plan, Segment, Surge, arrival_blocks, arrival_times, one_segment, read_plan
from serving_stack.traffic.recorded import Arrivals, Rates, shipped
from trimtab.errors import SettingsError

SHAPES: list[dict[str, Any]] = [
    {},
    {"arrivals": "poisson"},
    {"arrivals": "constant"},
    {"arrivals": "bursty", "cv": 1.5},
    {"trace": "azure-conv"},
    {"trace": "vllm-sweep-900"},
]
RHYTHMS: list[dict[str, Any]] = [{"arrivals": "diurnal", "day": 20}, {"trace": "servegen-m-mid", "day": 3}]


@st.composite
def plans(draw: st.DrawFn, kinds: list[dict[str, Any]]) -> Plan:
    starts = sorted(draw(st.sets(st.floats(0, 50), min_size=1, max_size=3)))
    segments = [Segment(at=at, rate=draw(st.floats(0, 80)), **draw(st.sampled_from(kinds))) for at in starts]
    surges = draw(st.lists(st.builds(Surge, at=st.floats(0, 60), factor=st.floats(0, 5), lasts=st.floats(0.1, 30)), max_size=3))
    return Plan(
        seed=draw(st.integers(0, 2**31)),
        duration=draw(st.floats(0.5, 60)),
        warmup=draw(st.floats(0, 5)),
        segments=tuple(segments),
        surges=tuple(surges),
    )


def planned(plan: Plan) -> float:
    """How many arrivals a plan should have: its rate, summed in small steps."""
    step = 0.001
    total = 0.0
    first = plan.segments[0]
    for at in np.arange(-plan.warmup if first.at == 0 else first.at, plan.end, step):
        rate = ([s.rate for s in plan.segments if s.at <= at][-1] if at >= first.at else first.rate) or 0.0
        total += rate * step * math.prod([s.factor for s in plan.surges if s.at <= at < s.at + s.lasts])
    return total


@settings(max_examples=40, deadline=None)
@given(plans(SHAPES + RHYTHMS))
def test_sorted_inside_the_plan_and_the_same_every_time(plan: Plan) -> None:
    times = arrival_times(plan)
    assert np.isfinite(times).all()
    assert (np.diff(times) >= 0).all()
    assert times.size == 0 or (times[0] >= -plan.warmup and times[-1] < plan.end)
    assert np.array_equal(times, arrival_times(plan))


@settings(max_examples=25, deadline=None)
@given(plans(SHAPES))
def test_as_many_as_planned(plan: Plan) -> None:
    expected = planned(plan)
    # Six standard deviations of a Poisson count. A trace in a segment too short to have a mean may be off by more.
    slack = 6 * np.sqrt(expected) + 5
    if any(segment.trace for segment in plan.segments):
        slack += 300
    if any(segment.cv for segment in plan.segments):
        slack *= 1.5
    assert abs(arrival_times(plan).size - expected) <= slack


@pytest.mark.parametrize("kind", [{"arrivals": "constant"}, {"arrivals": "poisson"}, {"trace": "azure-conv"}])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mean_rate_and_surge_factor_hold(kind: dict[str, str], seed: int) -> None:
    calm = Plan(seed=seed, duration=300, segments=(Segment(rate=20, **kind),))
    assert arrival_times(calm).size / 300 == pytest.approx(20, rel=0.05)
    surged = Plan(seed=seed, duration=300, segments=(Segment(rate=20, **kind),), surges=(Surge(at=100, factor=4, lasts=100),))
    times = arrival_times(surged)
    inside = int(((times >= 100) & (times < 200)).sum())
    # A trace has its own slow waves: within them, a surge of four is still far from none.
    wide = 0.5 if "trace" in kind else 0.1
    assert inside / (times.size - inside) == pytest.approx(2, rel=wide)


def test_constant_arrivals_during_a_surge_are_exactly_denser() -> None:
    plan = Plan(duration=30, segments=(Segment(rate=10, arrivals="constant"),), surges=(Surge(at=10, factor=3, lasts=10),))
    gaps = np.diff(arrival_times(plan))
    assert gaps[:95] == pytest.approx(0.1)
    assert gaps[105:395] == pytest.approx(1 / 30)


def test_a_trace_keeps_its_bursts() -> None:
    def spread(**kind: str) -> float:
        times = arrival_times(Plan(seed=5, duration=600, segments=(Segment(rate=20, **kind),)))
        per_second = np.bincount(times.astype(int), minlength=600)
        return float(per_second.var() / per_second.mean())

    assert spread(arrivals="constant") < 0.1
    assert spread(arrivals="poisson") == pytest.approx(1, abs=0.3)
    assert spread(trace="azure-conv") > 1.3


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0, 6.0])
def test_bursty_gaps_have_their_deviation(cv: float) -> None:
    gaps = np.diff(arrival_times(Plan(seed=2, duration=4000, segments=(Segment(rate=50, arrivals="bursty", cv=cv),))))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)
    assert gaps.mean() == pytest.approx(0.02, rel=0.05)


def test_a_diurnal_day_is_busiest_at_noon_and_has_the_rate_over_all() -> None:
    times = arrival_times(Plan(seed=1, duration=500, warmup=50, segments=(Segment(rate=100, arrivals="diurnal", day=100),)))
    assert (times >= 0).sum() / 500 == pytest.approx(100, rel=0.02)
    hour = np.bincount((times[times >= 0] % 100 / 100 * 24).astype(int), minlength=24)
    assert hour[12] / hour[0] == pytest.approx(7, rel=0.15)
    assert hour.argmax() in (11, 12)
    assert (times < -25).sum() > (times[times < 0] > -25).sum() * 1.5  # the afternoon and the night before


def test_a_surge_makes_the_day_pass_no_faster() -> None:
    day = Segment(rate=100, arrivals="diurnal", day=100)
    times = arrival_times(Plan(seed=1, duration=100, segments=(day,), surges=(Surge(at=0, factor=10, lasts=25),)))
    hour = np.bincount((times / 100 * 24).astype(int), minlength=24)
    assert hour[6:].argmax() + 6 in (11, 12)
    assert hour[12] / hour[18] == pytest.approx(1.75, rel=0.15)


def test_a_curve_of_rates_is_followed_and_comes_again() -> None:
    recording = shipped("servegen-mm-image")
    assert isinstance(recording, Rates)
    times = arrival_times(Plan(seed=3, duration=288, segments=(Segment(rate=200, trace="servegen-mm-image", day=144),)))
    seconds = np.bincount(times.astype(int), minlength=288)
    for day in (seconds[:144], seconds[144:]):
        assert np.corrcoef(day, recording.rates)[0, 1] > 0.9
    assert times.size / 288 == pytest.approx(200, rel=0.02)


def test_at_a_speed_a_recording_is_played_just_as_it_was() -> None:
    recording = shipped("vllm-sweep-900")
    assert isinstance(recording, Arrivals)
    plan = one_segment(trace="vllm-sweep-900", speed=4)
    expected = np.append(0.0, np.cumsum(recording.gaps)) / 4
    assert arrival_times(plan) == pytest.approx(expected, abs=1e-9)  # all 500, once
    assert one_segment(trace="servegen-m-large", speed=1000).duration == pytest.approx(14 * 86.4)
    twice = arrival_times(plan.model_copy(update={"duration": 2 * expected[-1] + 1}))
    assert twice[500:600] - twice[500] == pytest.approx(expected[:100], abs=1e-6)  # and once more, after a gap
    assert twice[500] - twice[499] == pytest.approx(recording.gaps.mean() / 4)


def test_seeds_differ() -> None:
    for kind in ({"arrivals": "poisson"}, {"trace": "azure-conv"}):
        a, b = (arrival_times(Plan(seed=seed, duration=60, segments=(Segment(rate=20, **kind),))) for seed in (1, 2))
        assert not np.array_equal(a, b)


def test_nothing_arrives_during_a_pause() -> None:
    plan = Plan(duration=30, segments=(Segment(rate=50),), surges=(Surge(at=10, factor=0, lasts=10),))
    times = arrival_times(plan)
    assert not ((times > 10) & (times < 20)).any()
    assert (times > 20).sum() > 300
    assert arrival_times(Plan(duration=5, segments=(Segment(rate=0),))).size == 0


def test_without_an_end_it_goes_on_in_blocks_of_bounded_size() -> None:
    plan = Plan(segments=(Segment(rate=50, trace="azure-conv"),))
    blocks = list(itertools.islice(arrival_blocks(plan), 30))
    assert max(block.size for block in blocks) <= 4096
    times = np.concatenate(blocks)
    assert (np.diff(times) >= 0).all()
    assert times.size / times[-1] == pytest.approx(50, rel=0.1)  # more than six times through the trace
    for endless in (one_segment(rate=5, arrivals="diurnal", day=7), one_segment(rate=50, trace="servegen-m-small")):
        times = np.concatenate(list(itertools.islice(arrival_blocks(endless), 40)))
        assert (np.diff(times) >= 0).all()
    assert not list(arrival_blocks(one_segment(rate=0, arrivals="diurnal")))
    with pytest.raises(ValueError, match="no last arrival"):
        arrival_times(plan)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("segments: []", "segments"),
        ("segments: [{rate: -1}]", "plan.yaml:1: segments.0.rate"),
        ("segments: [{rate: 1, arrivals: poisson, trace: azure-conv}]", "either arrivals or trace"),
        ("segments: [{rate: 1, trace: mine}]", "segments.0.trace"),
        ("segments: [{rate: 1, trace: azure-conv, trace_file: mine}]", "not several"),
        ("segments: [{}]", "either rate .* or, with a trace, speed"),
        ("segments: [{rate: 1, speed: 1, trace: azure-conv}]", "either rate .* or, with a trace, speed"),
        ("segments: [{speed: 1}]", "speed goes with trace"),
        ("segments: [{rate: 1, trace_column: a}]", "trace_column goes with trace_file"),
        ("segments: [{rate: 1, arrivals: poisson, day: 60}]", "day goes with diurnal"),
        ("segments: [{speed: 1, trace: servegen-m-mid, day: 60}]", "not with speed"),
        ("segments: [{rate: 1, trace: azure-conv, cv: 2}]", "cv goes with"),
        ("segments: [{rate: 1, arrivals: diurnal, day: 0}]", "segments.0.day"),
        ("segments: [{rate: .nan}]", "segments.0.rate"),
        ("segments:\n  - {at: 5, rate: 1}\n  - {at: 5, rate: 2}", "order"),
        ("segments: [{rate: 1}]\nsurges: [{at: 1, factor: 2}]", "plan.yaml:2: surges.0.for: missing"),
        ("segments: [{rate: 1}]\nspeed: 3", "plan.yaml:2: speed: unknown key"),
        ("segments: [{rate: 1}]\nduration: 0", "plan.yaml:2: duration"),
        ("[1, 2]", "plan.yaml"),
    ],
)
def test_a_wrong_plan_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_plan(path)


def test_a_wrong_plan_of_one_segment_is_refused_in_words_too() -> None:
    with pytest.raises(SettingsError, match="^give either rate"):
        one_segment(rate=1, speed=2)
    with pytest.raises(SettingsError, match="^trace: Input should be 'azure-conv'"):
        one_segment(rate=1, trace="mine")


def test_a_plan_reads_back_from_json(tmp_path: Path) -> None:
    plan = Plan(seed=3, duration=10, warmup=2, segments=(Segment(rate=5),), surges=(Surge(at=1, factor=2, lasts=3),))
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json(by_alias=True))
    assert read_plan(path) == plan
    assert arrival_times(plan)[0] < 0

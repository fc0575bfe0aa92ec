"""Recorded demand: what ships, files of one's own in the forms that traces come in, and files that are none."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_stack.traffic import Plan, Segment, arrival_times
from serving_stack.traffic.recorded import Arrivals, Rates, Trace, is_curve, shipped
from serving_stack.traffic.trace_file import read_trace
from trimtab.errors import SettingsError


@pytest.mark.parametrize("name", get_args(Trace))
def test_every_named_trace_is_there_and_whole(name: Trace) -> None:
    recording = shipped(name)
    assert isinstance(recording, Rates) == is_curve(name)
    values = recording.rates if isinstance(recording, Rates) else recording.gaps
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert recording.mean_rate > 0 < recording.seconds


def test_the_traces_are_what_they_say() -> None:
    azure, large, day = shipped("azure-conv"), shipped("servegen-m-large"), shipped("servegen-deepseek-r1")
    assert isinstance(azure, Arrivals) and azure.gaps.size + 1 == 19_366
    assert isinstance(large, Rates) and large.seconds == 14 * 86_400 and large.rates.max() == 582.9917
    assert day.seconds == 86_400
    slow, fast = shipped("vllm-sweep-100"), shipped("vllm-sweep-2000")
    assert isinstance(slow, Arrivals) and isinstance(fast, Arrivals)
    assert slow.gaps.size == fast.gaps.size == 499
    assert fast.mean_rate / slow.mean_rate == pytest.approx(20, rel=1e-3)
    for recording in (slow, fast):  # one piece of BurstGPT, at different speeds: as bursty in both
        assert recording.gaps.std() / recording.gaps.mean() == pytest.approx(4.9, abs=0.01)


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
AZURE += "2023-11-16 18:15:51.2224670,879,55\n"
GAPS = [4.314579, 0.227298]


@pytest.mark.parametrize(
    ("name", "text", "gaps"),
    [
        ("azure.csv", AZURE, GAPS),
        ("with-zone.csv", "TIMESTAMP,x\n2024-05-10 00:00:00.009930+00:00,1\n2024-05-10 02:00:01.009930+02:00,1\n", [1.0]),
        ("burstgpt.csv", "Timestamp,Model,Log Type\n5,ChatGPT,API\n45.5,GPT-4,API\n118,ChatGPT,API\n", [40.5, 72.5]),
        ("times.txt", "3\n\n0.5\n1e0\n", [0.5, 2.0]),  # in any order
        (
            "detail.json",
            '{"0": {"record_time": 9.5, "total_chunk_time": 2}, "1": {"record_time": 9, "total_chunk_time": 0.25}}',
            [1.25],
        ),
        ("bom.csv", "\ufeffarrival,x\n1,\n2,\n", [1.0]),
    ],
)
def test_reads_arrivals_in_the_forms_that_traces_come_in(tmp_path: Path, name: str, text: str, gaps: list[float]) -> None:
    for suffix, pack in (("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)):
        path = tmp_path / (name + suffix)
        path.write_bytes(pack(text.encode()))
        recording = read_trace(path)
        assert isinstance(recording, Arrivals)
        assert recording.gaps == pytest.approx(gaps, abs=1e-6)


def test_a_column_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("id,sent at,time\n1,10,0\n2,13,1\n")
    recording = read_trace(path, "sent at")
    assert isinstance(recording, Arrivals) and recording.gaps.tolist() == [3.0]


def test_reads_rates_per_step(tmp_path: Path) -> None:
    path = tmp_path / "rates.csv"
    path.write_text("t_s,small,large\n0,1,10\n60,2,20\n120,,30\n")
    small, large = read_trace(path, "small"), read_trace(path, "large")
    assert isinstance(small, Rates) and small.step == 60 and small.rates.tolist() == [1, 2]
    assert isinstance(large, Rates) and large.mean_rate == 20 and large.seconds == 180


def test_a_plan_finds_its_trace_beside_itself(tmp_path: Path) -> None:
    from serving_stack.traffic import read_plan

    (tmp_path / "times.txt").write_text("0\n1\n4\n")
    (tmp_path / "plan.yaml").write_text("duration: 4.5\nsegments: [{speed: 1, trace_file: times.txt}]\n")
    assert arrival_times(read_plan(tmp_path / "plan.yaml")).tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "", "no two arrivals"),
        ("a.txt", "5\n5\n", "no two arrivals"),
        ("a.txt", "1\nsoon\n", "a.txt:2: 'soon' is no number"),
        ("a.txt", "1\nnan\n", "a.txt:2"),
        ("a.txt", "1\n1e999\n", "a.txt:2"),
        ("a.csv", "", "none of the columns"),
        ("a.csv", "x,y\n1,2\n", "--trace-column"),
        ("a.csv", "time\n1\nyesterday\n", "a.csv:3: 'yesterday'"),
        ("a.csv", "x,time\n1,1\n2\n", "a.csv:3: ''"),
        ("a.csv", "t_s,a,b\n0,1,1\n60,2,2\n", "--trace-column must say whose"),
        ("a.csv", "t_s,a\n0,1\n60,2\n90,3\n", "equal steps"),
        ("a.csv", "t_s,a\n0,1\n", "equal steps"),
        ("a.csv", "t_s,a\n0,1\n60,-2\n", "a.csv:3: the rate -2 is negative"),
        ("a.csv", "t_s,a\n0,0\n60,0\n", "zero throughout"),
        ("a.json", "{", "not the detail_log"),
        ("a.json", '{"0": {"record_time": 1}}', "not the detail_log"),
        ("a.csv.gz", "time\n1\n2\n", "cannot be read"),
        ("a.txt.xz", "1\n2\n", "cannot be read"),
    ],
)
def test_what_is_no_trace_is_refused_in_words(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_trace(path)


def test_what_is_not_there_or_not_text_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        read_trace(tmp_path / "gone.csv")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not text"):
        read_trace(tmp_path / "bytes")
    (tmp_path / "times.txt").write_text("0\n1\n")
    with pytest.raises(SettingsError, match="only a CSV"):
        read_trace(tmp_path / "times.txt", "time")
    segment = Segment(rate=1, trace_file=tmp_path / "times.txt", day=60)
    with pytest.raises(SettingsError, match="one by one"):
        arrival_times(Plan(duration=1, segments=(segment,)))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["csv", "json", "txt", "csv.gz", "xz"]),
    st.one_of(st.binary(max_size=200), st.text("0123456789.,-:\nt_sime ")),
)
def test_no_file_gives_anything_but_a_recording_or_words(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: str | bytes
) -> None:
    path = tmp_path_factory.mktemp("hostile") / f"trace.{kind}"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    try:
        recording = read_trace(path)
    except SettingsError as error:
        assert str(path) in str(error)
        return
    assert np.isfinite(recording.mean_rate) and recording.mean_rate > 0

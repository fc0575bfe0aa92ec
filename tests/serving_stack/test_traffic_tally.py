"""Counting results, reading answers and the questions themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_stack.traffic.questions import banking77, question, read_answer
from serving_stack.traffic.tally import Latencies, Result, Tally


def result(at: float, outcome: str = "ok", latency: float = 0.01, **more: object) -> Result:
    return Result(time=1000 + at, at=at, latency=latency, outcome=outcome, **more)  # type: ignore[arg-type]


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 99, 99.9, 100]))
def test_percentiles_are_within_a_percent(values: list[float], p: float) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    exact = float(np.percentile(values, p, method="inverted_cdf"))
    assert latencies.percentile(p) == pytest.approx(exact, rel=0.011, abs=2e-6)


def test_no_values_no_percentile() -> None:
    assert Latencies().percentile(99) is None
    assert Tally().summary()["error_ratio"] is None


def test_the_first_bad_response_of_each_version() -> None:
    tally = Tally()
    tally.add(result(1, version="1", assigned="1"))
    tally.add(result(2, "wrong", version="2", assigned="2"))
    tally.add(result(4, latency=0.5, version="1", assigned="2", attempts=3))  # version 2 failed, version 1 answered
    tally.add(result(3, "error", latency=2.0, assigned="2", error="HTTP 503"))
    tally.add(result(9, "error", error="no answer within 20 s"))
    summary = tally.summary()
    versions = summary["versions"]
    assert isinstance(versions, dict)
    assert versions["1"]["first_bad"] is None
    assert versions["2"]["first_wrong"] == pytest.approx(1002.01)
    assert versions["2"]["first_retried"] == pytest.approx(1004.5)
    assert versions["2"]["first_error"] == pytest.approx(1005.0)
    assert versions["2"]["first_bad"] == pytest.approx(1004.5)
    assert summary["errors"] == 2
    assert summary["error_ratio"] == pytest.approx(2 / 5)
    assert summary["error_kinds"] == {"HTTP 503": 1, "no answer within 20 s": 1}
    assert versions["unknown"]["error"] == 2


def test_questions_are_the_whole_test_split_in_a_seeded_order() -> None:
    questions = banking77(1)
    assert len(questions) == 3080
    assert len({q.label for q in questions}) == 77
    assert questions == banking77(1)
    assert questions != banking77(2)
    assert sorted(q.body for q in questions) == sorted(q.body for q in banking77(2))


@given(st.text(), st.text())
def test_any_text_makes_a_request(text: str, label: str) -> None:
    body = json.loads(question(text.replace("\ud800", ""), label).body)
    assert body["inputs"][0]["shape"] == [1, 1]


def test_reads_tritons_answer() -> None:
    body = (
        b'{"model_name":"intent","model_version":"2","outputs":[{"name":"label","datatype":"BYTES","shape":[1,1],"data":["x"]}]}'
    )
    assert read_answer(body) == ("2", "x")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\xff", b'{"model_version":"2","outputs":[]}', b'{"model_version":2,"outputs":[]}', b"[]"]
)
def test_refuses_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_answer(body)

"""Counting results, reading answers and the questions themselves."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_stack.traffic.questions import banking77, question, read_answer
from serving_stack.traffic.tally import Result, Tally


def result(at: float, outcome: str = "ok", latency: float = 0.01, **more: object) -> Result:
    return Result(time=1000 + at, at=at, latency=latency, outcome=outcome, **more)  # type: ignore[arg-type]


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


def test_accuracy_is_of_what_was_answered_with_its_interval() -> None:
    tally = Tally()
    assert tally.summary()["accuracy"] is None
    for i in range(100):
        tally.add(result(i, "wrong" if i % 10 == 0 else "ok", version="1"))
    tally.add(result(101, "error", error="HTTP 503"))
    summary = tally.summary()
    versions = summary["versions"]
    assert isinstance(versions, dict)
    # statsmodels: proportion_confint(90, 100, method="wilson") == (0.8256, 0.9448)
    assert summary["accuracy"] == versions["1"]["accuracy"] == {"value": 0.9, "low": 0.8256, "high": 0.9448}
    assert versions["unknown"]["accuracy"] is None
    assert "adapters" not in summary


def test_adapters_are_counted_apart() -> None:
    tally = Tally()
    for adapter, outcome in (("b", "ok"), ("a", "wrong"), ("b", "ok"), ("b", "error")):
        tally.add(result(1, outcome, version="1", adapter=adapter))
    adapters = tally.summary()["adapters"]
    assert isinstance(adapters, dict)
    assert {name: (one["ok"], one["wrong"], one["error"]) for name, one in adapters.items()} == {"a": (0, 1, 0), "b": (2, 0, 1)}
    assert adapters["b"]["accuracy"]["value"] == 1.0


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

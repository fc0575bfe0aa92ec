"""Values as people read them."""

from __future__ import annotations

import pytest

from autoscaler.kubectl import words
from trimtab.errors import TrimtabError
from trimtab.messages import Decision

AGES = {
    0: "0s",
    119: "119s",
    120: "2m",
    303: "5m3s",
    3600: "60m",
    14_700: "4h5m",
    90_000: "25h",
    300_000: "3d11h",
    900_000: "10d",
}


@pytest.mark.parametrize(("seconds", "text"), AGES.items())
def test_ages_are_as_kubectl_says_them(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


def test_an_age_that_is_not_known_or_not_yet_is_no_number() -> None:
    assert words.age(None, 5.0) == words.age("yesterday", 5.0) == "-"
    assert words.age("2026-01-01T00:00:00Z", 0.0) == "0s"  # a clock that is behind


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1d", 86_400), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert words.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "30 m", "-5m", "0m", "1h!", "1w", "1e9s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(TrimtabError, match="no duration|no time"):
        words.seconds_of(text)


def test_changes() -> None:
    before = {"weights": {"1": 100}, "size": 2, "in_traffic": True}
    after = {"weights": {"1": 80, "2": 20}, "replicas": 3, "size": 2, "in_traffic": False}
    decision = Decision(id="1", fleet="f", time=0.0, action="shift_traffic", outcome="applied", reason="", from_=before, to=after)
    assert words.change(decision) == "weights v1:100 -> v1:80/v2:20, in_traffic true -> false, replicas - -> 3"

"""What a set's replica counts, and the file in which it notes what is popular."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EDGE = Path(__file__).parents[2] / "serving_stack" / "edge_model"


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The backend's modules, imported as Triton's Python does it."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(EDGE))
    import measures  # type: ignore[import-not-found]
    import popularity  # type: ignore[import-not-found]

    yield type("Edge", (), {"measures": measures, "Popularity": popularity.Popularity})
    for name in set(sys.modules) - before & {"measures", "popularity"}:
        del sys.modules[name]


PAGE: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}


class Family:
    """Triton's `MetricFamily`, with one page for all."""

    COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

    def __init__(self, name: str, description: str, kind: str) -> None:
        assert description.endswith(".")
        self.name, self.kind = name, kind

    def Metric(self, labels: dict[str, str], buckets: list[float] | None = None) -> Metric:
        assert (buckets is not None) == (self.kind == self.HISTOGRAM)
        return Metric(self, labels)


class Metric:
    def __init__(self, family: Family, labels: dict[str, str]) -> None:
        self.family, self.key = family, (family.name, tuple(sorted((k, v) for k, v in labels.items() if k != "model")))
        PAGE[self.key] = 0.0

    def __del__(self) -> None:
        PAGE.pop(self.key, None)

    def increment(self, value: float) -> None:
        assert self.family.kind == Family.COUNTER and value >= 0
        PAGE[self.key] += value

    def set(self, value: float) -> None:
        assert self.family.kind == Family.GAUGE
        PAGE[self.key] = value

    def observe(self, value: float) -> None:
        assert self.family.kind == Family.HISTOGRAM
        PAGE[self.key] += 1


def value(name: str, **labels: str) -> float | None:
    return PAGE.get((f"trimtab_{name}", tuple(sorted(labels.items()))))


def test_what_was_counted_is_brought_to_the_page_at_once(edge: Any) -> None:
    page = edge.measures.Measures(Family, {"model": "edge"})
    assert value("adapters_requests_total", result="miss") == 0 and value("model_confidence_count") == 0
    page.asked("hit", 3)
    page.answered("banking", 2.5, 3)
    page.loaded("miss", 1000, 0.01)
    page.evicted(2)
    assert value("adapters_requests_total", result="hit") == 0
    page.bring(4, 400, 1000, [("banking", 0.75), ("travel", 0.25), ("never", 0.0)])
    assert value("adapters_requests_total", result="hit") == 3
    assert (value("model_confidence_sum"), value("model_confidence_count")) == (2.5, 3)
    assert value("adapter_answers_total", adapter="other") == 3  # it was not among the popular when it answered
    assert value("adapters_moved_bytes_total", why="miss") == 1000 and value("adapters_evictions_total") == 2
    assert (value("adapters_held"), value("adapters_held_bytes"), value("adapters_limit_bytes")) == (4, 400, 1000)
    assert value("adapter_request_ratio", adapter="banking") == 0.75
    assert value("adapter_request_ratio", adapter="never") is None
    page.bring(4, 400, 1000, [])
    assert value("adapters_requests_total", result="hit") == 3


def test_however_many_adapters_there_are_only_the_popular_have_series(edge: Any) -> None:
    page = edge.measures.Measures(Family, {"model": "edge"})
    for turn in range(10):
        shares = [(f"task{(turn * 7 + each) % 500}", 1 / (each + 2)) for each in range(100)]
        page.bring(1, 1, 1, shares)
        for name, _ in shares:
            page.answered(name, 0.9, 1)
        page.bring(1, 1, 1, shares)
        named = {dict(labels).get("adapter") for _, labels in PAGE} - {None, "other"}
        assert named == {name for name, _ in shares[: edge.measures.NAMED]}
    assert value("adapter_answers_total", adapter="other") == 10 * 80


def test_what_is_popular_is_remembered(edge: Any, tmp_path: Path) -> None:
    file = tmp_path / "new" / "edge.json"
    assert edge.Popularity(file).read() == []
    edge.Popularity(file).write(["b", "a"])
    assert edge.Popularity(file).read() == ["b", "a"]
    edge.Popularity(file).write([])  # nobody asked yet: what is known stays
    assert edge.Popularity(file).read() == ["b", "a"]
    assert [each.name for each in file.parent.iterdir()] == ["edge.json"]
    none = edge.Popularity(None)
    none.write(["a"])
    assert none.read() == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1}', b"\xff\xfe", b'[1, null, "a"]'])
def test_a_damaged_note_is_no_reason_not_to_start(edge: Any, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "edge.json"
    file.write_bytes(content)
    assert edge.Popularity(file).read() in ([], ["a"])


def test_where_it_cannot_be_noted_it_is_said_once(edge: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no folder")
    popularity = edge.Popularity(tmp_path / "file" / "edge.json")
    popularity.write(["a"])
    popularity.write(["a"])
    assert capsys.readouterr().err.count("popularity file") == 1


def test_it_is_json_that_others_can_read(edge: Any, tmp_path: Path) -> None:
    edge.Popularity(tmp_path / "edge.json").write(["ünlü", "b"])
    assert json.loads((tmp_path / "edge.json").read_text()) == ["ünlü", "b"]

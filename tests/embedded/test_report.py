"""The report: one page that needs nothing else, with every finding and decision marked and explained."""

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from embedded import report
from embedded import scenario as scenarios
from embedded.figures import figures
from embedded.judge import Verdict, judge
from embedded.recording import Recording, Request
from embedded.report.chart import lanes
from embedded.report.marks import marks
from embedded.report.plots import client_points, nines
from embedded.report.svg import Series, pieces
from embedded.results import write_events, write_summary
from trimtab.messages import Decision, Evidence, Finding, FleetState, PoolState, ReplicaState, Score
from trimtab.svg import Axis, el

ZERO = 1_700_000_000.0
TOUR = scenarios.read(scenarios.find("tour"))
EVIL = '</script><script>alert("x")</script>'


@pytest.fixture
def run() -> tuple[Recording, list[Request]]:
    """A made-up tour: a surge, a rollback, a quarantine, scores, and hostile words in a summary."""
    rng = random.Random(1)
    recording = Recording(TOUR.spec(), zero=ZERO)
    recording.note(ZERO + 70, "scenario", "traffic times 4", event=0, edge="begin")
    for second in range(-40, 240):
        replicas = [ReplicaState(name="a", version=1, phase="ready", since=ZERO, in_traffic=True)]
        pool = PoolState(version=1, role="stable", weight=100, wanted=1, replicas=replicas)
        recording.add(FleetState(fleet="intent", time=ZERO + second, pools=[pool]))
        recording.add(Score(fleet="intent", target="a", time=ZERO + second, detector="cnn_lstm", score=rng.random()))
    evidence = Evidence(
        detector="cnn_lstm", series="latency", observed=0.21, expected=0.014, score=0.9996, threshold=0.999, window=5
    )
    finding = Finding(
        id="f1", fleet="intent", kind="version_regression", severity="critical", onset=ZERO + 168, time=ZERO + 170,
        state="firing", confidence=0.99, summary=f"slow {EVIL}", version=3, evidence=[evidence],
    )  # fmt: skip
    recording.add(finding)
    recording.add(msgspec.structs.replace(finding, time=ZERO + 171))
    recording.add(msgspec.structs.replace(finding, time=ZERO + 180, state="resolved"))
    recording.add(
        Decision(
            id="d1", fleet="intent", time=ZERO + 172, action="rollback", version=3, outcome="applied", because=["f1", "x=1"],
            guard={"budget": 1}, to={"weights": {"2": 100}}, reason="slower beyond doubt", took=0.2,
        )
    )  # fmt: skip
    recording.add(Decision(id="d2", fleet="intent", time=ZERO + 220, action="hold", outcome="refused", reason="no telemetry"))
    requests = [
        Request(time=ZERO + t / 5, latency=rng.random() / 50, outcome="ok", version=1 if t < 800 else 2)
        for t in range(-200, 1200)
    ]
    return recording, requests


class Page(HTMLParser):
    """Collects what a browser would load or run, and whether every element is closed."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0
        self.outside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        self.outside += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "onclick", "onload")]
        self.outside += [tag] if tag in ("link", "img", "iframe", "object") else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def written(tmp_path: Path, recording: Recording, requests: list[Request] | None, **more: list[str]) -> str:
    path = tmp_path / "report.html"
    verdicts = judge(TOUR, recording, requests)
    report.write(path, TOUR, 7, recording, requests, verdicts, figures(TOUR, recording, requests, 3_000_000_000), **more)
    return path.read_text()


def test_the_page_is_whole_and_needs_nothing_from_outside(tmp_path: Path, run: tuple[Recording, list[Request]]) -> None:
    text = written(tmp_path, *run)
    page = Page(text)
    assert page.open == [] and page.outside == [] and page.scripts == 2
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert "replay of recorded DCGM data" in text


def test_words_from_messages_stay_words(tmp_path: Path, run: tuple[Recording, list[Request]]) -> None:
    text = written(tmp_path, *run)
    assert EVIL not in text and "&lt;/script&gt;" in text
    data = re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert data is not None
    parsed = json.loads(data[1])
    assert {"start", "end", "left", "right", "series"} <= parsed.keys()
    labels = [series["label"] for series in parsed["series"]]
    assert "traffic weights, version 1" in labels and "scores, cnn lstm" in labels


def test_every_mark_has_a_flag_and_a_row_that_explains_it(tmp_path: Path, run: tuple[Recording, list[Request]]) -> None:
    text = written(tmp_path, *run)
    found = marks(run[0], ZERO)
    assert [(mark.number, mark.at, mark.kind) for mark in found] == [
        (1, 170, "finding"),
        (2, 172, "decision"),
        (3, 220, "refused"),
    ]
    assert "resolved at 180.0 s" in found[0].why and any("observed 0.21, expected 0.014" in line for line in found[0].why)
    assert "because of mark 1, x=1" in found[1].why and "guard: budget 1" in found[1].why
    for mark in found:
        assert text.count(f'data-mark="{mark.number}"') == 2 and f'id="row-{mark.number}"' in text


@pytest.mark.parametrize("requests", [None, []])
def test_without_the_clients_requests_it_uses_telemetry_and_says_what_is_unknown(
    tmp_path: Path, run: tuple[Recording, list[Request]], requests: list[Request] | None
) -> None:
    text = written(tmp_path, run[0], requests, trouble=["the run was interrupted"])
    Page(text)
    assert "unknown: the client" in text and "not as expected" in text and "the run was interrupted" in text


def test_a_run_of_which_nothing_is_known_still_gives_a_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    report.write(path, TOUR, 7, Recording(TOUR.spec()), None, [], {"rollback_s": None}, ["interrupted"])
    assert "stopped before it could be judged" in path.read_text()


def test_the_clients_points_are_exact() -> None:
    requests = [
        Request(time=t / 10, latency=0.01 * (t % 10), outcome="error" if t % 10 == 9 else "ok", version=1) for t in range(100)
    ]
    last = client_points(requests, 0.0, 10.0)[-1]
    assert (last.time, last.requests, last.errors) == (10.0, 10.0, 1.0)
    assert last.p50 == pytest.approx(0.04) and last.p99 == pytest.approx(0.08)
    assert client_points([], 0.0, 10.0) == []


def test_lines_break_where_nothing_is_known() -> None:
    found = pieces(Series("x", "c1", [(0, 1.0), (1, 2.0), (2, None), (3, 1.0), (9, 1.0)]))
    assert [[time for time, _, _ in piece] for piece in found] == [[0, 1], [3], [9]]


def test_marks_close_together_take_rows_of_their_own() -> None:
    assert lanes([10, 15, 20, 60, 61]) == [0, 1, 2, 0, 1]
    assert lanes([]) == []


def test_scores_are_drawn_by_their_nines() -> None:
    assert [nines(score) for score in (0.0, 0.9, 0.999, 1.0)] == pytest.approx([0.0, 1.0, 3.0, 4.0])


def test_the_time_axis_keeps_to_the_plot() -> None:
    axis = Axis(-45, 240, 70, 1184)
    assert (axis.x(-100), axis.x(240), axis.x(999)) == (70, 1184, 1184)
    assert axis.ticks()[0] == -30 and 6 <= len(axis.ticks()) <= 13


def test_elements_are_escaped_and_numbers_short() -> None:
    made = el("text", "a<b", x=1.23456, class_='q"', data_mark=3, gone=None)
    assert made.attrib == {"x": "1.23", "class": 'q"', "data-mark": "3"} and made.text == "a<b"


@pytest.mark.parametrize(("held", "trouble", "ok"), [(True, [], True), (False, [], False), (True, ["a part failed"], False)])
def test_the_summary_is_ok_only_for_a_whole_run_that_held(tmp_path: Path, held: bool, trouble: list[str], ok: bool) -> None:
    path = tmp_path / "summary.json"
    verdict = Verdict(expectation="never rollback", held=held, measured="it never was")
    assert write_summary(path, "tour", 7, [verdict], {"rollback_s": None, "requests": 3.0}, trouble) is ok
    read = json.loads(path.read_bytes())
    assert read["ok"] is ok and read["figures"] == {"rollback_s": None, "requests": 3.0}
    assert read["expectations"][0]["held"] is held and (read["scenario"], read["seed"]) == ("tour", 7)
    assert write_summary(path, "tour", 7, [], {}, []) is False


def test_events_are_lines_in_order_of_time(tmp_path: Path, run: tuple[Recording, list[Request]]) -> None:
    path = tmp_path / "events.jsonl"
    write_events(path, run[0].notes)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert {"time", "at", "kind", "words", "detail"} == lines[0].keys()
    assert {"scenario", "finding", "decision", "state"} == {line["kind"] for line in lines}

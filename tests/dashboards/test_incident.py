"""The incident page and the terminal view: the chain, the evidence, the refusals, and hostile names."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console

from dashboards.incident import page, sources, story, terminal
from dashboards.incident.curves import curves
from dashboards.incident.story import Archive, Story
from dashboards.notify.settings import IncidentSettings
from trimtab.bus import Record
from trimtab.errors import Missing, SettingsError
from trimtab.messages import (
    DECISIONS,
    FINDINGS,
    SCORES,
    STATES,
    TELEMETRY,
    Decision,
    Evidence,
    Finding,
    FleetState,
    Message,
    PoolState,
    ReplicaState,
    Score,
    Snapshot,
)

Make = Callable[..., Any]
TOPIC: dict[type[Message], str] = {Finding: FINDINGS, Decision: DECISIONS, FleetState: STATES, Score: SCORES, Snapshot: TELEMETRY}
GRAFANA = "https://g.example/d/trimtab-fleet?var-fleet={fleet}&from={from_ms}&to={to_ms}"


def records(*messages: Message) -> list[Record]:
    return [Record(TOPIC[type(m)], 0, n, m.time, m) for n, m in enumerate(messages)]  # type: ignore[attr-defined]


def archived(*messages: Message) -> Archive:
    ordered = sorted(messages, key=lambda message: message.time)  # type: ignore[attr-defined]
    return story.archive(records(*ordered), IncidentSettings(), None)


def told(*messages: Message, which: str = "latest") -> Story:
    archive = archived(*messages)
    return story.tell(archive, story.find(archive, which), GRAFANA)


def state(time: float, weights: dict[int, int], out: str | None = None, fleet: str = "intent") -> FleetState:
    pools = [
        PoolState(
            version=version,
            role="stable",
            weight=weight,
            wanted=1,
            replicas=[
                ReplicaState(name=f"r{version}", version=version, phase="ready", since=0.0, in_traffic=out != f"r{version}")
            ],
        )
        for version, weight in weights.items()
    ]
    return FleetState(fleet=fleet, time=time, pools=pools)


@pytest.fixture
def rollback(finding: Make, decision: Make) -> list[Message]:
    evidence = [Evidence(detector="peers", series="p99", observed=0.2, expected=0.004, score=0.99, threshold=0.9)]
    refusal = decision("no", 2.0, action="hold", outcome="refused", because=["f"], reason="demand does not explain it")
    return [
        state(0.0, {2: 80, 3: 20}),
        Snapshot(target="gateway", fleet="intent", role="gateway", time=2.5, took=0.01, up=True),
        Score(fleet="intent", target="r3", time=1.4, detector="peers", score=0.95),
        finding("f", 1.5, onset=1.0, evidence=evidence),
        refusal,
        decision(
            "d", 3.0, because=["f", "evidence=7.3"], to={"weights": {"2": 100}}, guard={"evidence": 7.3, "evidence_needed": 4.61}
        ),
        state(3.2, {2: 80, 3: 20}),
        state(3.6, {2: 100, 3: 0}),
        finding("f", 8.0, onset=1.0, state="resolved", evidence=evidence),
    ]


def test_the_chain_goes_from_scrape_to_outcome_and_each_step_names_its_cause(rollback: list[Message]) -> None:
    shown = told(*rollback)
    by_key = {step.key: step for step in shown.steps}
    assert [step.number for step in shown.steps] == list(range(1, len(shown.steps) + 1))
    assert [step.time for step in shown.steps] == sorted(step.time for step in shown.steps)
    assert (by_key["scrape/f"].time, by_key["score/f"].time, by_key["finding/f"].time) == (1.0, 1.4, 1.5)
    assert by_key["score/f"].causes == (by_key["scrape/f"].number,)
    assert by_key["finding/f"].causes[0] == by_key["score/f"].number
    assert by_key["decision/d"].causes[0] == by_key["finding/f"].number
    assert by_key["decision/no"].tone == "refused"
    assert (by_key["seen/d"].time, by_key["seen/d"].causes) == (3.6, (by_key["decision/d"].number,))
    assert by_key["over/f"].lane == "outcome"
    assert by_key["read/d"].details == ("evidence=7.3",)
    assert "evidence of harm 7.3, a rollback needs 4.61" in by_key["compared/d"].what


def test_what_was_not_observed_is_not_claimed(rollback: list[Message]) -> None:
    shown = told(*(m for m in rollback if not (isinstance(m, FleetState) and m.time > 3.5)))
    assert "not observed" in next(step for step in shown.steps if step.key == "seen/d").what


def test_quarantine_is_observed_in_the_traffic(finding: Make, decision: Make) -> None:
    fault = finding("f", 1.0, kind="replica_fault", target="r2", version=2)
    act = decision("d", 2.0, action="quarantine", target="r2", version=2, because=["f"])
    shown = told(fault, act, state(2.5, {2: 100}), state(4.0, {2: 100}, out="r2"))
    assert next(step.time for step in shown.steps if step.key == "seen/d") == 4.0


def test_refusals_of_the_time_are_shown_with_whose_they_are(rollback: list[Message], decision: Make) -> None:
    other = decision("z", 4.0, action="hold", outcome="refused", version=9, reason="version 9 is not promoted yet")
    late = decision("y", 400.0, action="hold", outcome="refused", version=9, reason="too late to matter")
    elsewhere = decision("x", 4.0, action="hold", outcome="refused", fleet="other")
    shown = told(*rollback, other, late, elsewhere, which="f")
    assert [(each.id, mine) for each, mine in shown.refused] == [("no", True), ("z", False)]


def test_evidence_is_what_was_first_seen_beside_what_was_last_seen(finding: Make) -> None:
    def seen(value: float) -> list[Evidence]:
        return [Evidence(detector="peers", series="p99", observed=value, expected=1.0)]

    first, later = finding("f", 0.0, evidence=seen(5.0)), finding("f", 5.0, evidence=seen(9.0))
    (one,) = told(first, later).evidence
    assert (one.evidence.observed, one.last.observed if one.last else None) == (5.0, 9.0)


def test_incidents_are_found_by_any_of_their_names(rollback: list[Message], finding: Make) -> None:
    archive = archived(*rollback, finding("g", 20.0, kind="demand_shift", version=None, severity="info"))
    first = archive.incidents[0][-1].incident
    for name in (first.id, first.id[:6], "f", "d", "latest"):  # the newest is only information, so it is not the latest
        assert story.find(archive, name)[-1].incident.id == first.id
    with pytest.raises(Missing, match="no incident 'nothing'"):
        story.find(archive, "nothing")
    with pytest.raises(Missing, match="beginning of|no incident ''"):
        story.find(archive, "")
    with pytest.raises(Missing, match="no incident is recorded"):
        story.find(Archive(), "latest")


class Page(HTMLParser):
    """Collects what a browser would load or run, and checks that elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.anchors: set[str] = set()
        self.ids: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag not in ("script", "iframe", "object", "embed", "img", "link")
        assert not any(name.startswith("on") for name in given)
        href = given.get("href")
        if href and href.startswith("#"):
            self.anchors.add(href[1:])
        elif href:
            self.outside.append(href)
        if given.get("id"):
            self.ids.add(str(given["id"]))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_stands_alone_and_its_marks_lead_to_their_rows(rollback: list[Message]) -> None:
    text = page.page(told(*rollback))
    parsed = Page(text)
    assert parsed.anchors <= parsed.ids
    assert len(parsed.anchors) >= 6
    assert parsed.outside == ["https://g.example/d/trimtab-fleet?var-fleet=intent&from=-299000&to=308000"]
    assert "url(" not in text
    for words in ("demand does not explain it", "peers", "0.004", "rolled back version 3", "evidence of harm 7.3"):
        assert words in parsed.words


HOSTILE = st.one_of(
    st.text(max_size=30), st.sampled_from(["</style><script>alert(1)</script>", "a/b \"c\" 'd'", "🚀\x00\x0b\x1b[31m", "{fleet}"])
)


@given(HOSTILE, HOSTILE, HOSTILE, st.sampled_from([2.0, -1e18, 1e18]))
@settings(deadline=None, max_examples=40, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_no_name_text_or_time_breaks_the_page_or_the_terminal(fleet: str, target: str, text: str, time: float) -> None:
    fault = Finding(
        id="f", fleet=fleet, target=target, kind="replica_fault", severity="critical", onset=0.0, time=1.0, state="firing",
        confidence=1.0, summary=text, evidence=[Evidence(detector=text, series=target, observed=float("nan"))],
    )  # fmt: skip
    act = Decision(
        id="d", fleet=fleet, time=time, action="quarantine", target=target, because=["f"], guard={text: text}, outcome="refused",
        reason=text,
    )  # fmt: skip
    shown = told(fault, act)
    Page(page.page(shown)).close()
    written = io.StringIO()
    terminal.show(shown, Console(file=written, width=100))
    assert not any((ord(letter) < 32 and letter != "\n") or 127 <= ord(letter) < 160 for letter in written.getvalue())


def test_the_command_reads_a_finished_run(rollback: list[Message], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    lines = [
        msgspec.json.encode({"topic": r.topic, "partition": 0, "offset": r.offset, "time": r.time, "message": r.message})
        for r in records(*rollback)
    ]
    (run / "records.jsonl").write_bytes(b"\n".join(lines) + b"\n" + b'{"topic": "trimtab.fin')  # killed while it wrote
    out = tmp_path / "pages" / "incident.html"
    argv = [sys.executable, "-m", "trimtab", "incident", "latest", "--run", str(run), "--out", str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rolled back version 3" in done.stdout
    assert "demand does not explain it" in Page(out.read_text()).words
    listed = subprocess.run([*argv[:4], "list", "--run", str(run)], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert re.search(r"critical\s+resolved\s+version 3", listed.stdout)
    missing = subprocess.run([*argv[:4], "nope", "--run", str(run)], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (missing.returncode, missing.stderr.strip()) == (
        2,
        "trimtab: no incident 'nope' is recorded here; `trimtab incident list` shows all",
    )


def test_a_file_that_is_no_recording_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text('{"topic": "trimtab.findings", "partition": 0, "offset": 1, "time": 1, "message": {"schema": 1}}\n')
    with pytest.raises(SettingsError, match=r"records.jsonl:1: this is no record"):
        sources.from_run(tmp_path)
    with pytest.raises(SettingsError, match="cannot be read"):
        sources.from_run(tmp_path / "nowhere")


def test_rates_of_clients_break_where_nothing_is_known() -> None:
    def snapshot(time: float, **counts: float) -> Snapshot:
        series: dict[str, float | None] = {
            f'trimtab_traffic_requests_total{{outcome="{outcome}",version="2"}}': float(n) for outcome, n in counts.items()
        }
        return Snapshot(target="traffic", fleet="intent", role="app", time=time, took=0.0, up=True, series=series)

    seen = [
        snapshot(0, ok=1, error=0),
        snapshot(1, ok=1, error=4),
        snapshot(2),
        snapshot(3, ok=0, error=1),
        snapshot(4, ok=0, error=3),
    ]
    (curve,) = curves([], seen, 0.0, 5.0)
    (line,) = curve.lines
    assert line == ("version 2", [(0.0, None), (1.0, 4.0), (2.0, None), (3.0, None), (4.0, 2.0)])

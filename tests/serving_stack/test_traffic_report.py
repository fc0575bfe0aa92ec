"""What a person sees of a run, and what the command refuses."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from serving_stack.traffic import Plan, Progress, Result, Segment
from serving_stack.traffic.report import adapters, line, remarks, table
from serving_stack.traffic.tally import Tally
from serving_stack.traffic_cli import traffic
from trimtab.errors import SettingsError


def summary(**more: Any) -> dict[str, Any]:
    tally = Tally()
    for i in range(40):
        version = "2" if i % 4 == 0 else "1"
        outcome = "error" if i == 39 else "wrong" if i % 10 == 0 else "ok"
        error = "HTTP 503" if outcome == "error" else None
        tally.add(
            Result(
                time=1000.0 + i,
                at=float(i),
                latency=0.010 + i / 1000,
                outcome=outcome,  # type: ignore[arg-type]
                version="unknown" if error else version,
                adapter=f"task-{i % 12}",
                error=error,
            )
        )
    counts = {"sent": 41, "unfinished": 1, "warmup_requests": 0, "latest_send_seconds": 0.004}
    return {**counts, **tally.summary(), **more}


def shown(what: Any) -> str:
    file = io.StringIO()
    Console(file=file, width=80).print(what)
    return file.getvalue()


def test_the_table_has_a_row_for_all_and_one_per_version() -> None:
    text = shown(table(summary()))
    rows = {row.split()[0]: row.split()[1:] for row in text.splitlines()[4:] if row.strip()}
    assert rows.keys() == {"all", "1", "2", "unknown"}
    assert rows["all"][:5] == ["35", "4", "1", "89.7", "(76.4-95.9)"]
    assert rows["unknown"][:4] == ["0", "0", "1", "-"]
    assert "40 answers and errors of 41 requests" in text


def test_remarks_say_what_numbers_do_not() -> None:
    assert remarks(summary(), None) == ["1 × HTTP 503", "1 were still open at the end: neither right nor wrong."]
    more = remarks(summary(warmup_requests=7, latest_send_seconds=0.2), pin=1)
    assert any("7 more during the warm-up" in one for one in more)
    assert any("10 answers are from other versions than the pinned 1" in one for one in more)
    told = remarks(summary(feedback={"told": 30, "failed": 9, "failed_kinds": {"HTTP 404": 9}}), None)
    assert "Of 30 answers the right label was told, not of 9 × HTTP 404." in told
    assert any("as much as 200 ms after its time" in one for one in more)


def test_the_most_asked_adapters_are_shown() -> None:
    found = summary()
    shown_adapters = adapters(found)
    assert shown_adapters is not None and shown_adapters.row_count == 10
    assert "the 10 most asked of 12 adapters" in shown(shown_adapters)
    del found["adapters"]
    assert adapters(found) is None


@pytest.mark.parametrize(
    ("at", "end", "said"), [(-2.0, 60.0, "warming up  20/s"), (12.3, math.inf, "12 s  "), (61.0, 60.0, "60 s of 60")]
)
def test_a_line_says_how_it_goes(at: float, end: float, said: str) -> None:
    second: dict[str, object] = {"sent": 20, "in_flight": 3, "p50": 0.0091, "p99": None}
    text = line(Progress(at=at, end=end, second=second, total=summary())).plain
    assert text.startswith(said)
    assert "20/s  3 open  p50 9.1  p99 - ms  1 errors" in text
    assert "version 1: 93.1 (78.0-98.1) % right" in text


def command(*argv: str) -> Any:
    return CliRunner().invoke(traffic, argv)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--trace", "mine"], "azure-conv"),
        (["--trace", "azure-conv", "--arrivals", "poisson"], "not several"),
        (["--speed", "2"], "speed goes with trace"),
        (["--rate", "2", "--speed", "2", "--trace", "azure-conv"], "either rate"),
        (["--day", "60"], "day goes with"),
        (["--plan", "p.yaml", "--rate", "3"], "leave out --rate"),
        (["--plan", "p.yaml", "--trace-file", "t.csv"], "leave out --trace-file"),
        (["--trace-file", "gone.csv"], "gone.csv: cannot be read"),
        (["--url", "localhost:8000"], "starts with none"),
    ],
)
def test_the_command_refuses_in_words(argv: list[str], said: str) -> None:
    result = command(*argv)
    assert isinstance(result.exception, SettingsError), result.output
    assert said in str(result.exception)


def test_where_nobody_listens_the_command_says_so(tmp_path: Path) -> None:
    argv = ["--url", "http://127.0.0.1:1", "--rate", "50", "--duration", "0.2", "--summary", str(tmp_path / "s")]
    printed = command(*argv)  # not to a terminal: JSON
    assert printed.exit_code == 0
    assert json.loads(printed.stdout) == json.loads((tmp_path / "s").read_text())
    told = command(*argv, "--table", "--progress")
    assert told.exit_code == 0
    assert "× ClientConnectorError" in told.stdout


def test_a_plan_of_the_command_is_that_of_a_file() -> None:
    from serving_stack.traffic import one_segment

    assert one_segment(seed=3, duration=5, rate=7, arrivals="bursty", cv=None) == Plan(
        seed=3, duration=5, segments=(Segment(rate=7, arrivals="bursty"),)
    )

"""Ten times more requests than a fleet can answer: refused early by the gateway, and, beside it, all of them let in.

A real Triton whose model is made to take 0.4 s per batch of at most 16, so 40 requests/s, and the real Envoy, set as for a model
of that speed: a goal of 1.5 s for the median. `trimtab traffic` sends at a constant rate, open loop, and gives up on an answer
after 20 s. The first seconds of each run, in which the limit finds its place, are left out.

Figures: `goodput_share`: good answers per second at ten times the capacity over those at four fifths of it;
`answered_p99_seconds` of good answers and `refused_p50_seconds` of refusals; without a limit `bare_goodput_share` and
`bare_answered_p99_seconds`; `other_errors`: what got neither an answer nor a 503 with Retry-After.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.drain.fleet import MODEL, fleet, shipped
from benchmarks.frame import Cell, Options, Result
from benchmarks.gateway.turns import share
from serving_stack.fault import Fault
from serving_stack.gateway import Admission, Patience
from serving_stack.repository import publish
from trimtab.errors import Unavailable

CAPACITY = 40.0
SETTLE_SECONDS = 4.0
SLOW = 3
"""The version that takes its time."""


def run(options: Options) -> Result:
    """40 s each: as much as it can answer, ten times that, and ten times that without a limit; quick: 7 s each."""
    seconds = 7.0 if options.quick else 40.0
    limit = Admission(target=1.5, least=32)
    rows: list[dict[str, Cell]] = []
    with tempfile.TemporaryDirectory(prefix="trimtab-overload-") as name:
        folder = Path(name)
        shipped(folder / "store", options.say)
        publish(folder / "store", MODEL, SLOW, folder / "store" / MODEL / "1", Fault(kind="slow", seconds=0.4))
        runs: list[tuple[str, float, Admission | None]] = [
            ("what it can answer", 0.8 * CAPACITY, limit),
            ("ten times its capacity", 10 * CAPACITY, limit),
            ("the same, no limit", 10 * CAPACITY, None),
        ]
        found = []
        for number, (what, rate, admission) in enumerate(runs):
            options.say(f"{what}: {rate:g} requests/s for {seconds:g} s")
            lines = _play(folder / str(number), folder / "store", rate, seconds, admission)
            found.append(_seen(lines, seconds))
            rows.append({"load": what, "requests/s": rate, **found[-1]})
    calm, limited, bare = found
    figures = {
        "goodput_share": _ratio(limited, calm),
        "answered_p99_seconds": _number(limited["good_p99_s"]),
        "refused_p50_seconds": _number(limited["refused_p50_s"]),
        "bare_goodput_share": _ratio(bare, calm),
        "bare_answered_p99_seconds": _number(bare["good_p99_s"]),
        "other_errors": _number(limited["other_errors"]),
    }
    return Result(rows, figures, [f"counted are requests that were due after the first {SETTLE_SECONDS:g} s of each run"])


def _play(folder: Path, store: Path, rate: float, seconds: float, admission: Admission | None) -> list[dict[str, Any]]:
    with fleet(folder, store, Patience(), admission) as on:
        on.start((SLOW, "stable", 1, 100))
        traffic = on.traffic("load", rate)
        traffic.wait_ready()
        log = folder / "load.jsonl"
        end = time.monotonic() + 30
        while not (log.exists() and log.stat().st_size):
            if time.monotonic() > end:
                raise Unavailable(f"no traffic came up.{traffic.last_lines()}")
            time.sleep(0.1)
        time.sleep(seconds)
        traffic.stop()
    return [json.loads(line) for line in log.read_text().splitlines()]


def _seen(lines: list[dict[str, Any]], seconds: float) -> dict[str, Cell]:
    """What became of the requests that were due after the limit had settled; latencies from then on."""
    settled = [line for line in lines if SETTLE_SECONDS <= line["at"] <= seconds]
    good = sorted(line["latency"] for line in settled if line["outcome"] != "error")
    refused = sorted(line["latency"] for line in settled if line.get("error") == "HTTP 503")
    return {
        "good/s": round(len(good) / (seconds - SETTLE_SECONDS), 1),
        "good_p50_s": _share(good, 0.5),
        "good_p99_s": _share(good, 0.99),
        "refused": len(refused),
        "refused_p50_s": _share(refused, 0.5),
        "other_errors": len(settled) - len(good) - len(refused),
    }


def _share(ordered: list[float], part: float) -> float | None:
    return round(share(ordered, part), 3) if ordered else None


def _number(cell: Cell) -> float | None:
    return None if cell is None else float(cell)


def _ratio(one: dict[str, Cell], calm: dict[str, Cell]) -> float | None:
    base = _number(calm["good/s"])
    return (_number(one["good/s"]) or 0.0) / base if base else None

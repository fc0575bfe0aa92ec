"""Requests lost while a fleet changes under load, and when a replica is killed: with the gateway's retries, and without.

Real Tritons with the shipped model, the real fleet host, the real Envoy, and `trimtab traffic` at a constant rate. A round is one
change, in turn: a replica more, one less, a canary with a fifth of the traffic, that version instead of the old one. A request is
lost when its client gets anything but an answer.

Figures: `rounds`, `requests`, `lost_requests` over the rounds; `kills`, `lost_on_kill` with the gateway's retries, and
`lost_without_retries` on as many kills without; `round_seconds` (median), `p99_seconds` over the rounds.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.drain.fleet import Fleet, Pool, fleet, shipped
from benchmarks.frame import Cell, Options, Result, median
from serving_stack.gateway import Patience
from trimtab.errors import Unavailable

RATE = 50.0
"""Requests per second: what the machine answers easily while it starts a replica."""


def run(options: Options) -> Result:
    """50 rounds and twice 10 kills, about three minutes; quick: 4 rounds and twice 2 kills."""
    rounds, kills = (4, 2) if options.quick else (50, 10)
    rows: list[dict[str, Cell]] = []
    with tempfile.TemporaryDirectory(prefix="trimtab-drain-") as name:
        folder = Path(name)
        shipped(folder / "store", options.say)
        with fleet(folder / "with", folder / "store") as on:
            on.start((1, "stable", 1, 100))
            changes = list(itertools.islice(_changes(), rounds))
            seconds: list[float | None] = []

            def change() -> None:
                for number, (what, pools) in enumerate(changes, 1):
                    began = time.monotonic()
                    on.change(*pools)
                    seconds.append(time.monotonic() - began)
                    options.say(f"round {number} of {rounds}: {what}, {seconds[-1]:.1f} s")

            changed = _under_load(on, folder / "with", "rounds", change)
            rows.append(_row("rounds of changes", rounds, changed))
            rows.append(_row("kill -9, with retries", kills, killed := _kills(on, folder / "with", kills, options)))
        none = Patience(retries=0, hedge_after=60, hedge_after_alone=60)
        with fleet(folder / "without", folder / "store", none) as on:
            on.start((1, "stable", 2, 100))
            rows.append(_row("kill -9, without retries", kills, bare := _kills(on, folder / "without", kills, options)))
    figures = {
        "rounds": float(rounds),
        "requests": float(changed["sent"]),
        "lost_requests": _lost(changed),
        "kills": float(kills),
        "lost_on_kill": _lost(killed),
        "lost_without_retries": _lost(bare),
        "round_seconds": median(seconds),
        "p99_seconds": changed["latency_seconds"]["p99"],
    }
    return Result(rows, figures, [f"traffic at {RATE:g} requests/s; a killed replica is replaced before the next is killed"])


def _changes() -> Iterator[tuple[str, tuple[Pool, ...]]]:
    """Each as the whole fleet that shall be, without end."""
    for old, new in itertools.cycle(((1, 2), (2, 1))):
        yield "one replica more", ((old, "stable", 2, 100),)
        yield "one replica less", ((old, "stable", 1, 100),)
        yield "a canary with a fifth of the traffic", ((old, "stable", 1, 80), (new, "canary", 1, 20))
        yield "the other version", ((new, "stable", 1, 100),)


def _kills(on: Fleet, folder: Path, kills: int, options: Options) -> dict[str, Any]:
    on.change((1, "stable", 2, 100))

    def kill() -> None:
        for number in range(1, kills + 1):
            time.sleep(1.0)
            on.kill()
            options.say(f"kill {number} of {kills}")
        time.sleep(1.0)

    return _under_load(on, folder, "kills", kill)


def _under_load(on: Fleet, folder: Path, name: str, work: Any) -> dict[str, Any]:
    """What the traffic generator says of the requests that it sent meanwhile."""
    traffic = on.traffic(name, RATE)
    traffic.wait_ready()
    log = folder / f"{name}.jsonl"
    end = time.monotonic() + 30
    while not (log.exists() and log.stat().st_size):
        if time.monotonic() > end or traffic.state != "ready":
            raise Unavailable(f"no traffic came up.{traffic.last_lines()}")
        time.sleep(0.1)
    work()
    traffic.stop()
    summary: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return summary


def _lost(summary: dict[str, Any]) -> float:
    return float(summary["errors"] + summary["unfinished"])


def _row(what: str, times: int, summary: dict[str, Any]) -> dict[str, Cell]:
    shares = {
        f"{name}_ms": None if value is None else round(1000 * value, 1) for name, value in summary["latency_seconds"].items()
    }
    return {
        "what": what,
        "times": times,
        "requests": int(summary["sent"]),
        "lost": int(_lost(summary)),
        "errors": ", ".join(f"{count} {kind}" for kind, count in summary["error_kinds"].items()) or "none",
        **{name: shares.get(name) for name in ("p50_ms", "p99_ms", "p99.9_ms")},
    }

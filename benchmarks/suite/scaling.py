"""The scaling decision in virtual time: Trimtab's real policy beside the rules of HPA, KEDA and Knative's KPA.

The model (`benchmarks/scaling/fleet.py`) and the rules' sources are in docs/benchmarks.md. Figures, medians over seeds, for each
controller `<key>` and situation `<sit>`: `<key>_<sit>_slo_s`, `<key>_<sit>_replica_s`; `<key>_surge_reaction_s`,
`<key>_surge_enough_s` (also `long_surge`); `<key>_slow_added` (also `slowish`, `slow_fleet`, `failing`; replicas).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from benchmarks.frame import Cell, Options, Result, median
from benchmarks.scaling import play
from benchmarks.scaling.controllers import Entry, entries
from benchmarks.scaling.play import Run, Situation

TAKES = frozenset({"seeds"})
START_SECONDS = 10.0
SEEDS = (1, 2, 3, 4, 5)
NOTES = (
    f"virtual time; a replica starts in {START_SECONDS:g} s; 900 s (quick: 360 s) of recorded arrivals at {play.RATE:g}/s",
    "slo_s: seconds in windows of 5 s whose p99 is over 250 ms; slow_ratio: requests over 250 ms; medians over seeds",
    "replica_s: replica-seconds, starting ones included; added: replicas wanted only because of the fault",
    "reaction_s: from the surge until more replicas are wanted; enough_s: until enough are ready; unknown: not while it lasts",
    "no finding is given to Trimtab: only its scaling is compared; its cure for a fault (quarantine) is in `bench tour`",
)


def run(options: Options) -> Result:
    """Plays every controller in every situation; quick: one seed, and 360 s."""
    seeds = options.seeds or (SEEDS[:1] if options.quick else SEEDS)
    duration, at = (360.0, 90.0) if options.quick else (900.0, 300.0)
    measured: dict[tuple[str, str], list[dict[str, float | None]]] = {}
    contestants, told = entries(), play.situations(duration, at)
    for seed in seeds:
        options.say(f"seed {seed}: {len(contestants)} controllers in {len(told)} situations")
        for entry in contestants:
            calm = _play(told[0], entry, seed)
            for situation in told:
                run_ = calm if situation is told[0] else _play(situation, entry, seed)
                measured.setdefault((situation.key, entry.key), []).append(_measure(situation, run_, calm))
    rows: list[dict[str, Cell]] = []
    figures: dict[str, float | None] = {}
    for situation in told:
        for entry in contestants:
            numbers = _medians(measured[situation.key, entry.key])
            concerned = {name: value for name, value in numbers.items() if _concerns(situation, name)}
            cells: dict[str, Cell] = {name: concerned.get(name, "") for name in numbers}
            rows.append({"situation": situation.words, "controller": entry.name, "looks at": entry.metric, **cells})
            figures.update({f"{entry.key}_{situation.key}_{name}": concerned[name] for name in concerned if name != "slow_ratio"})
    return Result(rows, figures, [*NOTES, f"seeds {', '.join(map(str, seeds))}"])


def _play(situation: Situation, entry: Entry, seed: int) -> Run:
    controller = entry.make(-play.LEAD_SECONDS, random.Random(f"{seed}:{entry.key}"))
    return play.play(situation, controller, seed, START_SECONDS)


def _measure(situation: Situation, run_: Run, calm: Run) -> dict[str, float | None]:
    surge, fault = situation.surge, situation.fault
    return {
        "slo_s": play.violating_seconds(run_, situation.duration),
        "slow_ratio": play.slow_ratio(run_),
        "replica_s": play.replica_seconds(run_),
        "reaction_s": play.reaction_seconds(run_, surge) if surge else None,
        "enough_s": play.enough_seconds(run_, surge) if surge else None,
        "added": float(play.added_for(run_, calm, fault)) if fault else None,
    }


def _medians(runs: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    return {name: median([each[name] for each in runs]) for name in runs[0]}


def _concerns(situation: Situation, name: str) -> bool:
    if name in ("reaction_s", "enough_s"):
        return situation.surge is not None
    return name != "added" or situation.fault is not None

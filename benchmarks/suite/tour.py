"""The tour on the whole stack, once per seed: how fast it rolls back, scales up and quarantines, and what clients saw.

Each run is `trimtab demo --seed N`, about five and a half minutes. `--from DIR` reads finished runs instead. `--quick` plays
nothing and reads the newest finished tour under `runs/`: the stack takes over 50 s to start and to warm up alone.
Figures: medians of `rollback_s`, `scale_up_s`, `quarantine_s`, `promote_s`, `client_error_ratio`, `client_p99_s` and
`peak_memory_bytes` (none where half of the runs have none), `runs`, `runs_ok`, `expectations`, `expectations_held`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import tours
from benchmarks.frame import Cell, Options, Result, median
from benchmarks.tours import Summary
from trimtab.errors import SettingsError

TAKES = frozenset({"seeds", "runs"})
SCENARIO = "tour"
SEEDS = (1, 2, 3, 4, 5)
FIGURES = ("rollback_s", "scale_up_s", "quarantine_s", "promote_s", "client_error_ratio", "client_p99_s", "peak_memory_bytes")


def run(options: Options) -> Result:
    """Plays or reads the runs; a run that came to no summary is a row of unknowns, and counts as worse than any number."""
    if options.runs and options.seeds:
        raise SettingsError("give either --seeds, to play, or --from, to read finished runs")
    notes = ["medians over runs; a run in which something never happened counts as worse than any number"]
    read = "nothing was played: the machine above is the one that read the runs"
    if options.runs:
        found = [tours.read(folder) for folder in tours.folders(options.runs)]
        return table([(summary.seed, summary) for summary in found], [*notes, read])
    if options.quick:
        newest = tours.newest(SCENARIO, Path("runs"))
        if newest is None:
            raise SettingsError(
                f"--quick plays nothing and reads the newest finished {SCENARIO} under runs/, and there is none: "
                "play one with `trimtab demo`, or name a folder with --from"
            )
        summary = tours.read(newest)
        return table([(summary.seed, summary)], [*notes, read, f"quick: read from {newest}"])
    folder, played = tours.new_folder("bench-tour"), []
    for seed in options.seeds or SEEDS:
        options.say(f"seed {seed}: playing, about five and a half minutes; its output is in {folder}/seed-{seed}/demo.log")
        played.append((seed, tours.play(SCENARIO, seed, folder / f"seed-{seed}")))
    return table(played, [*notes, f"played into {folder}"])


def table(runs: Sequence[tuple[int, Summary | None]], notes: Sequence[str]) -> Result:
    """A row per run and one of medians. Raises `SettingsError` for runs of several scenarios: they have no common median."""
    scenarios = {summary.scenario for _seed, summary in runs if summary}
    if len(scenarios) > 1:
        raise SettingsError(f"these are runs of several scenarios ({', '.join(sorted(scenarios))}): give runs of one")
    rows = [_row(seed, summary) for seed, summary in runs]
    medians = {name: median([summary.figures.get(name) if summary else None for _seed, summary in runs]) for name in FIGURES}
    whole = [summary for _seed, summary in runs if summary]
    held, expected = sum(map(_held, whole)), sum(len(summary.expectations) for summary in whole)
    rows.append({"seed": "median", "ok": f"{sum(s.ok for s in whole)}/{len(runs)}", "held": f"{held}/{expected}", **medians})
    counts = {"runs": len(runs), "runs_ok": sum(s.ok for s in whole), "expectations": expected, "expectations_held": held}
    missed = [f"seed {s.seed} missed: {v.expectation}; {v.measured}" for s in whole for v in s.expectations if not v.held]
    trouble = [f"seed {s.seed}: {words}" for s in whole for words in s.trouble]
    silent = [f"seed {seed} came to no summary: its demo.log says why" for seed, summary in runs if summary is None]
    return Result(rows, {**medians, **counts}, [*notes, *missed, *trouble, *silent])


def _row(seed: int, summary: Summary | None) -> dict[str, Cell]:
    if summary is None:
        return {"seed": str(seed), "ok": "no", "held": "did not end", **dict.fromkeys(FIGURES)}
    held = f"{_held(summary)}/{len(summary.expectations)}"
    figures = {name: summary.figures.get(name) for name in FIGURES}
    return {"seed": str(seed), "ok": "yes" if summary.ok else "no", "held": held, **figures}


def _held(summary: Summary) -> int:
    return sum(verdict.held for verdict in summary.expectations)

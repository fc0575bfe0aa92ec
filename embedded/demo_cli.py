"""The command `trimtab demo`: plays a scenario on the whole stack and judges it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

demo = typer.Typer(help="Play a scenario on the whole stack on this machine, and judge it.")


@demo.command()
def play(
    scenario: Annotated[str, typer.Option(help="A scenario that ships with Trimtab, or a YAML file.")] = "tour",
    seed: Annotated[int | None, typer.Option(help="Seed of traffic and choices; default: the scenario's own.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; default: runs/<scenario>-<time>.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Plain lines instead of the live view, as when not in a terminal.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the scenarios that ship with Trimtab, and stop.")] = False,
) -> None:
    """Play a scenario on the whole stack on this machine, and judge it.

    Starts a real Kafka broker, a Flink job, Triton servers behind Envoy and the autoscaler, sends real inference traffic,
    plays the scenario's events, and then says which of its expectations held. DIR gets summary.json, events.jsonl,
    records.jsonl.gz and report.html. The exit code is 0 only if every expectation held, 1 if one was missed, 2 when the
    stack or the scenario is not fit to run, and 130 after Ctrl-C.

    Examples: `trimtab demo`, `trimtab demo --scenario bad-answers --seed 3 --out /tmp/run`, `trimtab demo --list`
    """
    from embedded import demo as play_demo

    raise typer.Exit(play_demo.list_scenarios() if list_ else play_demo.run(scenario, seed=seed, out=out, plain=plain))

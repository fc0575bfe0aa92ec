"""The command `trimtab demo`: plays a scenario on the whole stack and judges it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

demo = typer.Typer(add_completion=False, help="Play a scenario on the whole stack on this machine, and judge it.")


@demo.command()
def play(
    scenario: Annotated[str, typer.Option(help="A scenario that ships with Trimtab, or a YAML file.")] = "tour",
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of traffic and choices; default: the scenario's own.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; default: runs/<scenario>-<time>.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Plain lines instead of the live view, as when not in a terminal.")
    ] = False,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="NAMESPACE", help="Play on a Kubernetes cluster, with a ModelFleet in this namespace."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the scenarios that ship with Trimtab, and stop.")] = False,
) -> None:
    """Play a scenario on the whole stack on this machine, and judge it.

    A real Kafka broker, a Flink job, Triton servers behind Envoy and the
    autoscaler start here; real inference traffic flows; the scenario's
    events happen; and then it says which of its expectations held.

    The results folder gets summary.json, events.jsonl, records.jsonl
    (for `trimtab replay`) and report.html.

    Exit code: 0 every expectation held, 1 one was missed, 2 the scenario
    or the machine is not fit for it, 130 after Ctrl-C.

    With --cluster it makes a ModelFleet on a cluster where the system runs
    already, plays on that, and deletes it: see docs/kubernetes.md.

    Example: trimtab demo --scenario bad-answers --seed 3 --out /tmp/run
    """
    from embedded import demo as play_demo

    if list_:
        raise typer.Exit(play_demo.list_scenarios())
    raise typer.Exit(play_demo.run(scenario, seed=seed, out=out, plain=plain, cluster=cluster))

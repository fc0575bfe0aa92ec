"""`trimtab bench`."""

from __future__ import annotations

from pathlib import Path

import typer

bench = typer.Typer()


@bench.command()
def run(
    name: str = typer.Argument("", help="Which benchmark; leave it out to list them."),
    quick: bool = typer.Option(False, "--quick", help="A smaller run that ends within 50 s. Not for quoting."),
    json_file: Path | None = typer.Option(None, "--json", help="Also write rows, figures, command and machine to this file."),
    data: Path | None = typer.Option(None, "--data", help="Folder with the data sets that docs/benchmarks.md names for it."),
    seeds: str = typer.Option("", "--seeds", help="Seeds to repeat it with, such as 1,2,3 (scaling, tour)."),
    runs: list[Path] = typer.Option(
        [], "--from", help="Folder of a finished run to read in place of playing one (tour); repeatable."
    ),
    fleets: int = typer.Option(0, "--fleets", min=0, help="How many ModelFleets (fleets). 0: the benchmark's own number."),
) -> None:
    """Measures one thing beside an alternative in the same run, and prints the table.

    Example: trimtab bench scaling --quick --json scaling.json
    """
    from rich.console import Console

    from benchmarks import frame

    console = Console()
    if not name:
        for known, what in frame.names().items():
            console.print(f"[bold]{known}[/]  {what}")
        return
    options = frame.Options(
        quick=quick,
        data=data,
        seeds=frame.parse_seeds(seeds),
        runs=tuple(runs),
        fleets=fleets,
        say=lambda text: console.print(text, style="dim", markup=False, highlight=False),
    )
    record = frame.measure(name, options)
    frame.show(record, console)
    if json_file:
        frame.write(record, json_file)

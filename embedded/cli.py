"""The commands `trimtab up`, `demo`, `status` and `doctor`."""

from __future__ import annotations

from pathlib import Path

import typer

from embedded.demo_cli import demo as demo

up = typer.Typer(add_completion=False)
status = typer.Typer(add_completion=False)
doctor = typer.Typer(add_completion=False)


@up.command()
def _up(
    rate: float = typer.Option(20.0, min=0.1, max=1000.0, help="Requests per second on average, at a recorded trace's times."),
    capacity: float = typer.Option(30.0, min=0.1, help="Requests per second that one replica serves within the SLO."),
    min_replicas: int = typer.Option(1, min=1, max=16, help="Replicas at least."),
    max_replicas: int = typer.Option(4, min=1, max=16, help="Replicas at most; each takes some 200 MB."),
    seed: int = typer.Option(1, min=0, help="Decides arrival times and the order of questions."),
    folder: Path | None = typer.Option(None, help="Folder of logs, topics and models. Default: a new temporary one."),
    train: bool = typer.Option(True, help="Train the learned detectors on the first minutes."),
) -> None:
    """Start everything on this machine with real traffic, and keep it running until Ctrl-C.

    A real Kafka broker, a Flink job, Triton servers behind Envoy, the collector and the autoscaler, all on free loopback
    ports, which it prints. Nothing is left running afterwards. `trimtab release` then releases versions to it.

    Example: trimtab up --rate 30 --max-replicas 3
    """
    from embedded import up as keep_up
    from trimtab.errors import SettingsError
    from trimtab.messages import FleetSpec

    if min_replicas > max_replicas:
        raise SettingsError(f"--min-replicas {min_replicas} is more than --max-replicas {max_replicas}")
    spec = FleetSpec(
        fleet="intent",
        model="intent",
        version=1,
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        capacity_per_replica=capacity,
    )
    keep_up.run(spec, rate, seed, folder, train)


@status.command()
def _status(as_json: bool = typer.Option(False, "--json", help="One JSON list instead of tables.")) -> None:
    """Show what runs: addresses, replicas, weights and the last decisions of every stack on this machine.

    Example: trimtab status --json
    """
    from embedded import status as shown

    found = shown.statuses()
    if as_json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
        return
    if not found:
        typer.echo("No stack runs on this machine. `trimtab up` or `trimtab demo` starts one.")
        return
    from rich.console import Console

    console = Console()
    for each in found:
        console.print(shown.render(each))


@doctor.command()
def _doctor(as_json: bool = typer.Option(False, "--json", help="JSON instead of a table.")) -> None:
    """Say what this machine lacks for `trimtab demo` and how to get it. Exits with 1 when something needed is missing.

    Looks at Python, memory, disk, loopback ports, packages, Java, the jars and their hashes (fetching what is absent),
    and starts Triton and Envoy for a moment.

    Example: trimtab doctor --json
    """
    from embedded import doctor as examine

    checks = list(examine.diagnose())
    if as_json:
        import msgspec

        report = {"fit": examine.is_fit(checks), "checks": checks}
        typer.echo(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("what", "", "found", "how to get it")
        colours = {"ok": "green", "missing": "red", "warning": "yellow"}
        for check in checks:
            table.add_row(check.name, f"[{colours[check.verdict]}]{check.verdict}[/]", check.found, check.advice)
        Console().print(table)
    if not examine.is_fit(checks):
        raise typer.Exit(1)

"""The command `trimtab notify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from trimtab.bus import Bus

notify = typer.Typer(add_completion=False)

_BOOTSTRAP = typer.Option(None, "--kafka", help="Kafka's address, host:port. [default: kafka.bootstrap]", show_default=False)
_CONFIG = typer.Option(
    None, help="YAML settings, sections `notify`, `incident` and `kafka`. [default: trimtab.yaml]", show_default=False
)


@notify.callback(invoke_without_command=True)
def _notify(
    context: typer.Context,
    bootstrap: str = _BOOTSTRAP,
    config: Path = _CONFIG,
    metrics_port: int = typer.Option(0, help="Port of its own metrics on loopback; 0 takes a free one."),
    spans: Path = typer.Option(None, help="Write trace spans to this file, one JSON object a line.", show_default=False),
    check: bool = typer.Option(False, "--check", help="Only check the settings and templates, and say who would be told."),
) -> None:
    """Groups findings and decisions into incidents and tells every receiver of the settings, each in a thread per cause.

    Run one of it. Each receiver keeps its own place: one that is slow or away holds up nobody else, and misses nothing.
    SIGTERM or Ctrl-C stops it; a restart goes on where it was. What could not be delivered: `trimtab notify redeliver`.

    Example: trimtab notify --config trimtab.yaml
    """
    if context.invoked_subcommand is not None:
        return
    import logging
    import signal
    import threading

    from dashboards.notify.service import Notifier
    from dashboards.notify.settings import IncidentSettings, NotifySettings
    from trimtab import selfmetrics, settings, tracing

    incidents, chosen = settings.load(IncidentSettings, config), settings.load(NotifySettings, config)
    for receiver in chosen.receivers:
        typer.echo(f"receiver {receiver.name}: {receiver.format}, {receiver.min_severity} and worse")
    if not chosen.receivers:
        typer.echo("no receiver is set: incidents are grouped on trimtab.incidents, and nobody is told")
    if check:
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "kafka"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    stop = threading.Event()
    notifier = Notifier(_bus(bootstrap, config), incidents, chosen, stop)
    tracing.setup("notify", spans)
    port = selfmetrics.serve("notify", metrics_port)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    typer.echo(f"notify: own metrics at http://127.0.0.1:{port}/metrics")
    notifier.run()


@notify.command("redeliver")
def _redeliver(
    receiver: str = typer.Option(None, help="Only this receiver's. [default: all]", show_default=False),
    incident: str = typer.Option(None, help="Only this incident's. [default: all]", show_default=False),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only list the dead letters."),
    bootstrap: str = _BOOTSTRAP,
    config: Path = _CONFIG,
) -> None:
    """Tries the dead letters again, in order, under their old ids. Those that were delivered since are left out.

    Exit code 1 when some are still undelivered.

    Example: trimtab notify redeliver --receiver oncall
    """
    from rich.console import Console

    from dashboards.notify import redeliver
    from dashboards.notify.settings import IncidentSettings, NotifySettings
    from trimtab import settings

    incidents, chosen = settings.load(IncidentSettings, config), settings.load(NotifySettings, config)
    bus = _bus(bootstrap, config)
    history = redeliver.recorded(bus)
    letters = [
        letter
        for letter in redeliver.undelivered(history)
        if receiver in (None, letter.receiver) and incident in (None, letter.incident)
    ]
    console = Console(highlight=False)
    if dry_run or not letters:
        for letter in letters:
            console.print(f"{letter.receiver}  {letter.incident}  {letter.reason}", markup=False)
        console.print(f"{len(letters)} dead letters")
        return
    left = 0
    for result in redeliver.redeliver(bus, letters, {each.name: each for each in chosen.receivers}, incidents, history):
        left += not result.delivered
        console.print(f"{result.letter.receiver}  {result.letter.incident}  {result.words}", markup=False)
    console.print(f"{len(letters) - left} delivered, {left} left")
    raise typer.Exit(1 if left else 0)


def _bus(bootstrap: str | None, config: Path | None) -> Bus:
    from trimtab import settings
    from trimtab.bus import BusSettings, connect

    chosen = settings.load(BusSettings, config)
    return connect(chosen.model_copy(update={"bootstrap": bootstrap}) if bootstrap else chosen)

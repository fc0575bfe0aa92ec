"""`trimtab autoscale`, `trimtab replay` and `trimtab release`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from trimtab.bus import Bus

autoscale = typer.Typer(add_completion=False)
replay = typer.Typer(add_completion=False)
release = typer.Typer(add_completion=False)

_CONFIG = "Settings file, sections 'autoscale' and 'kafka'. Default: ./trimtab.yaml if there."
_BOOTSTRAP = "Kafka's address, host:port. Default: the setting kafka.bootstrap."


@autoscale.command()
def _autoscale(
    host: str = typer.Option(..., help="Address of the fleet host that runs the replicas, such as http://127.0.0.1:7070."),
    fleet: str = typer.Option("intent", help="The fleet to look after; one process per fleet."),
    state: Path = typer.Option(Path("autoscaler-state.json"), help="Where to remember: a restart goes on from here."),
    bootstrap: str | None = typer.Option(None, help=_BOOTSTRAP),
    config: Path | None = typer.Option(None, help=_CONFIG),
    metrics_port: int = typer.Option(
        0, help="Port of this process's own metrics, on loopback. 0: any free one, printed at start."
    ),
    spans: Path | None = typer.Option(None, help="Write traces to this file, one JSON object a line."),
) -> None:
    """Scales, rolls out, rolls back and quarantines one fleet, and says why (trimtab.decisions).

    Reads trimtab.telemetry, trimtab.findings and trimtab.fleets; nothing happens before a FleetSpec of the fleet is there.
    SIGTERM or Ctrl-C stops it; the fleet stays as it is.

    Example: trimtab autoscale --fleet intent --host http://127.0.0.1:7070 --state run/autoscaler.json
    """
    import logging
    import signal
    import threading

    from autoscaler.actuators.local import LocalActuator
    from autoscaler.loop import Autoscaler
    from autoscaler.settings import AutoscaleSettings
    from trimtab import selfmetrics, settings, tracing

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "kafka"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    chosen = settings.load(AutoscaleSettings, config)
    bus = _bus(bootstrap, config)
    tracing.setup("autoscaler", spans)
    port = selfmetrics.serve("autoscaler", metrics_port)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    typer.echo(f"autoscaler: fleet {fleet} at {host}, own metrics at http://127.0.0.1:{port}/metrics")
    with LocalActuator(host, chosen.host_timeout_seconds) as actuator:
        Autoscaler(bus, actuator, fleet, chosen, state).run(stop)


@replay.command()
def _replay(
    recording: Path | None = typer.Option(None, help="Recorded topics, one JSON record a line. Default: read them from Kafka."),
    fleet: str = typer.Option("intent", help="The fleet to replay."),
    from_state: Path | None = typer.Option(None, help="The autoscaler's state file as it was before the recording."),
    save: Path | None = typer.Option(None, help="Write what was read from Kafka to this file, to replay it elsewhere."),
    bootstrap: str | None = typer.Option(None, help=_BOOTSTRAP),
    config: Path | None = typer.Option(None, help=_CONFIG),
) -> None:
    """Feeds recorded topics through the policy again and compares the decisions. Changes nothing.

    Exit code 0: the same decisions; 1: differences, printed one a line. Use it with other settings to see what they would
    have decided.

    Example: trimtab replay --recording incident.jsonl --fleet intent
    """
    from autoscaler import recording as recordings
    from autoscaler import statefile
    from autoscaler.replay import replay as run
    from autoscaler.settings import AutoscaleSettings
    from trimtab import settings
    from trimtab.errors import Missing

    chosen = settings.load(AutoscaleSettings, config)
    records = recordings.read(recording) if recording else recordings.from_bus(_bus(bootstrap, config))
    if save:
        typer.echo(f"{recordings.write(save, records)} records written to {save}")
    memory = statefile.load(from_state, fleet).memory
    report = run(records, fleet, chosen, memory)
    if not report.steps:
        raise Missing(f"the recording has no step of fleet '{fleet}' (no FleetState on trimtab.states)")
    for difference in report.differences:
        typer.echo(difference.words)
    typer.echo(f"{report.steps} steps, {len(report.decisions)} decisions, {len(report.differences)} differences")
    raise typer.Exit(1 if report.differences else 0)


@release.command()
def _release(
    fleet: str = typer.Option("intent", help="The fleet."),
    version: int = typer.Option(..., help="Version of the model repository that should serve, such as 3."),
    bootstrap: str | None = typer.Option(None, help=_BOOTSTRAP),
    config: Path | None = typer.Option(None, help=_CONFIG),
) -> None:
    """Releases a version: publishes the newest FleetSpec with it. The autoscaler then starts a canary.

    A version that was rolled back is tried again when it is released again. Releasing the version that serves withdraws
    a canary; releasing the previous one during the guard goes back to it at once.

    Example: trimtab release --fleet intent --version 3
    """
    import time

    from autoscaler.release import release as publish

    spec = publish(_bus(bootstrap, config), fleet, version, time.time())
    typer.echo(f"released version {spec.version} of fleet {spec.fleet}")


def _bus(bootstrap: str | None, config: Path | None) -> Bus:
    from trimtab import settings
    from trimtab.bus import BusSettings, connect

    chosen = settings.load(BusSettings, config)
    return connect(chosen.model_copy(update={"bootstrap": bootstrap}) if bootstrap else chosen)

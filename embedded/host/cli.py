"""The command `trimtab host`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from serving_stack.fault import Fault

host = typer.Typer(add_completion=False)


@host.command()
def _host(
    store: Path = typer.Option(..., help="The model repository: STORE/<model>/<version>/."),
    work: Path = typer.Option(
        ..., help="Folder of this host alone: replicas, logs, and the last plan, from which it starts again."
    ),
    gateway: Path = typer.Option(..., help="Folder in which Envoy finds its files; shared with it."),
    targets: Path = typer.Option(..., help="The file_sd file to write: what the collector and Prometheus scrape."),
    also: Path | None = typer.Option(None, help="JSON file_sd file of other targets to put into it: gateway, traffic, GPUs."),
    fleet: str = typer.Option("intent", help="Name of the fleet."),
    model: str = typer.Option("intent", help="Name of the model."),
    version: int = typer.Option(1, min=1, help="The version to begin with, when there is no plan yet."),
    min_replicas: int = typer.Option(1, min=1, max=16, help="Replicas at least."),
    max_replicas: int = typer.Option(4, min=1, max=16, help="Replicas at most; each takes some 200 MB."),
    capacity: float = typer.Option(30.0, min=0.1, help="Requests per second that one replica serves within the SLO."),
    address: str | None = typer.Option(None, help="IP address at which others reach the replicas. [default: this machine's own]"),
    listen: str = typer.Option("127.0.0.1", help="Listen here. Other than loopback: who reaches it can stop replicas."),
    port: int = typer.Option(7070, min=1, max=65535, help="Port of the host's own API, /v1/fleets/FLEET."),
    drills: str = typer.Option(
        "", help="""Versions with a fault, to release while trying Trimtab: '{"3": {"kind": "slow", "seconds": 0.2}}'."""
    ),
    bootstrap: str | None = typer.Option(
        None, "--kafka", help="Kafka's address, host:port. Default: the setting kafka.bootstrap."
    ),
    config: Path | None = typer.Option(None, help="Settings file, section 'kafka'. Default: ./trimtab.yaml if there."),
) -> None:
    """Run a fleet's Triton replicas as processes, as the autoscaler says over HTTP, and keep Envoy and scrapers in step.

    For containers without Kubernetes. Says on trimtab.fleets which fleet this is, the first time. SIGTERM stops all of it.

    Example: trimtab host --store /opt/trimtab/store --work /work --gateway /gateway --targets /targets/targets.json
    """
    import signal
    import socket
    import threading

    from embedded.host import alone
    from trimtab import settings
    from trimtab.bus import BusSettings, connect
    from trimtab.errors import SettingsError
    from trimtab.messages import FleetSpec

    if min_replicas > max_replicas:
        raise SettingsError(f"--min-replicas {min_replicas} is more than --max-replicas {max_replicas}")
    own = address or ("127.0.0.1" if listen == "127.0.0.1" else socket.gethostbyname(socket.gethostname()))
    how = alone.Alone(
        spec=FleetSpec(
            fleet=fleet,
            model=model,
            version=version,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            capacity_per_replica=capacity,
        ),
        store=store,
        work=work,
        gateway=gateway,
        targets=targets,
        address=own,
        listen=listen,
        port=port,
        also=also,
        drills=_drills(drills),
    )
    bus = settings.load(BusSettings, config)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    typer.echo(f"host: fleet {fleet} at http://{own}:{port}/v1/fleets/{fleet}")
    alone.run(how, connect(bus.model_copy(update={"bootstrap": bootstrap}) if bootstrap else bus), stop)


def _drills(text: str) -> dict[int, Fault]:
    import msgspec
    from pydantic import TypeAdapter, ValidationError

    from serving_stack.fault import Fault
    from trimtab.errors import SettingsError

    if not text.strip():
        return {}
    try:
        given = msgspec.json.decode(text, type=dict[int, object])
        return TypeAdapter(dict[int, Fault]).validate_python(given)
    except (msgspec.DecodeError, ValidationError) as error:
        raise SettingsError(f"--drills is not a JSON object of version and fault: {error}") from error

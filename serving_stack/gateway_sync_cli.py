"""The command `trimtab gateway-sync`."""

# ruff: noqa: B008 (options are defaults: that is how typer reads them)

from __future__ import annotations

from pathlib import Path

import typer

gateway_sync = typer.Typer(help="On Kubernetes: keep a gateway pod's Envoy in step with its ModelFleet.")


@gateway_sync.command()
def _gateway_sync(
    fleet: str = typer.Option(..., help="The ModelFleet's name."),
    folder: Path = typer.Option(Path("/gateway"), help="The folder that Envoy, in the container beside this one, reads."),
    namespace: str | None = typer.Option(None, help="The ModelFleet's namespace. [default: the one that this pod is in]"),
) -> None:
    """Watch a ModelFleet's plan and its Ready pods, and write Envoy's weights and endpoints at each change.

    Runs beside Envoy in every gateway pod, so a decision reaches Envoy in milliseconds. While the API server is away,
    Envoy goes on with what it has.

    Example: trimtab gateway-sync --fleet intent --folder /gateway
    """
    import logging
    import signal
    import threading

    from serving_stack.gateway.kubernetes_sync import Sync
    from serving_stack.gateway.settings import GatewaySettings
    from trimtab.kube import connect
    from trimtab.settings import load

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    kube = connect()
    Sync(kube, namespace or kube.namespace, fleet, folder, load(GatewaySettings)).run(stop)

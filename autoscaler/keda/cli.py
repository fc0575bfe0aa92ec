"""`trimtab keda-scaler`."""

from __future__ import annotations

from pathlib import Path

import typer

keda_scaler = typer.Typer(add_completion=False)


@keda_scaler.command()
def _keda_scaler(
    listen: str = typer.Option("127.0.0.1:6000", help="Address for KEDA, host:port. In a pod: 0.0.0.0:6000. Port 0: any."),
    bootstrap: str | None = typer.Option(None, help="Kafka's address, host:port. Default: the setting kafka.bootstrap."),
    config: Path | None = typer.Option(
        None, help="Settings file, sections 'autoscale' and 'kafka'. Default: ./trimtab.yaml if there."
    ),
    metrics_port: int = typer.Option(
        0, help="Port of this process's own metrics, on loopback or at TRIMTAB_METRICS_HOST. 0: any free one, printed at start."
    ),
) -> None:
    """Serves the replicas that Trimtab's demand estimate asks for to KEDA, as an external scaler (gRPC). Acts on nothing.

    Reads trimtab.telemetry and trimtab.fleets. While the demand is not known, the answer is an error and never 0, so that KEDA's
    fallback, or the size as it is, holds.

    Example: trimtab keda-scaler --listen 0.0.0.0:6000 --bootstrap kafka.trimtab:9092
    """
    import asyncio
    import logging
    import signal

    from autoscaler.keda.reader import Reader
    from autoscaler.keda.service import serve
    from autoscaler.settings import AutoscaleSettings
    from trimtab import selfmetrics, settings
    from trimtab.bus import BusSettings, connect

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # says each attempt; the reader says once what it means
    chosen = settings.load(BusSettings, config)
    bus = connect(chosen.model_copy(update={"bootstrap": bootstrap}) if bootstrap else chosen)

    own = f"http://{selfmetrics.metrics_host()}:{selfmetrics.serve('keda-scaler', metrics_port)}/metrics"

    async def run(reader: Reader) -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        host = listen.rpartition(":")[0]
        await serve(
            reader, listen, stop, lambda port: typer.echo(f"keda-scaler: listening on {host}:{port}, own metrics at {own}")
        )

    with Reader(bus, settings.load(AutoscaleSettings, config)) as reader:
        asyncio.run(run(reader))

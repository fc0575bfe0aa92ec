"""`trimtab collect` and `trimtab replay-gpu`."""

from __future__ import annotations

from pathlib import Path

import typer

collect = typer.Typer(add_completion=False)
replay_gpu = typer.Typer(add_completion=False)


@collect.command()
def _collect(
    targets: Path = typer.Option(
        ..., help="Prometheus file_sd file (JSON or YAML) with the targets; read again when it changes."
    ),
    config: Path | None = typer.Option(
        None, help="Settings file, sections 'collect' and 'kafka'. Default: ./trimtab.yaml if there."
    ),
    metrics_port: int = typer.Option(
        0, help="Port of this process's own metrics, on loopback. 0: any free one, printed at start."
    ),
    spans: Path | None = typer.Option(None, help="Write traces to this file, one JSON object a line."),
) -> None:
    """Scrapes Triton, Envoy, traffic and GPU pages every second and puts each as a Snapshot on Kafka (trimtab.telemetry).

    A target that fails in any way gives a Snapshot that says so. While Kafka is away, snapshots wait in memory, in order.
    SIGTERM or Ctrl-C delivers what is known and stops; the exit code is 1 when something could not be delivered.

    Example: trimtab collect --targets targets.json --config trimtab.yaml --metrics-port 9464
    """
    import asyncio
    import logging

    from collectors.collector import run
    from collectors.settings import CollectSettings
    from trimtab import selfmetrics, settings, tracing
    from trimtab.bus import BusSettings, connect
    from trimtab.errors import Missing

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # says each attempt; the spool says once what it means
    collect_settings = settings.load(CollectSettings, config)
    bus = connect(settings.load(BusSettings, config))
    tracing.setup("collector", spans)
    try:
        port = selfmetrics.serve("collector", metrics_port)
    except OSError as error:
        raise Missing(
            f"cannot listen on 127.0.0.1:{metrics_port}: {error.strerror}; choose another with --metrics-port"
        ) from error
    typer.echo(f"collector: targets from {targets}, own metrics at http://127.0.0.1:{port}/metrics")
    if asyncio.run(run(collect_settings, targets, bus)):
        raise typer.Exit(1)


@replay_gpu.command()
def _replay_gpu(
    port: int = typer.Option(9400, help="Port to serve /metrics on, on loopback. 0: any free one, printed at start."),
    gpus: int = typer.Option(4, min=1, max=64, help="How many GPUs the page shows."),
    speed: float = typer.Option(1.0, min=0.001, help="Recorded samples per second. They were taken every 10 minutes."),
    assignment: Path | None = typer.Option(None, help='JSON file: which replica has which GPU, as {"0": "intent-v1-1"}.'),
    faults: Path | None = typer.Option(None, help='JSON file: GPUs or replicas that fail, as {"intent-v1-1": "xid79"}.'),
    hostname: str = typer.Option("gpu-node", help="Value of the label Hostname."),
) -> None:
    """Serves recorded GPU telemetry in the format of NVIDIA's DCGM exporter, for machines without a GPU. The page says so.

    Both files are read again when they change. A GPU with the fault xid79 plays what was recorded when GPUs fell off the bus:
    XID 79, memory figures gone, temperature, power and utilisation frozen.

    Example: trimtab replay-gpu --gpus 4 --assignment gpus.json --faults faults.json
    """
    import logging
    import signal
    import threading

    from collectors.gpu_replay import Replay, serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    over = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: over.set())
    replay = Replay(gpus, speed=speed, assignment=assignment, faults=faults, hostname=hostname)
    at, stop = serve(replay, port)
    typer.echo(f"replaying recorded telemetry of {gpus} GPUs at http://127.0.0.1:{at}/metrics")
    over.wait()
    stop()

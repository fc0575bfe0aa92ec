"""`trimtab collect` and `trimtab replay-gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collectors.discovery import Source

collect = typer.Typer(add_completion=False)
replay_gpu = typer.Typer(add_completion=False)


@collect.command()
def _collect(
    targets: Path | None = typer.Option(
        None, help="Prometheus file_sd file (JSON or YAML) with the targets; read again when it changes."
    ),
    kubernetes: bool = typer.Option(
        False, "--kubernetes", help="Find the targets in Kubernetes: pods with the label trimtab.dev/fleet and a port 'metrics'."
    ),
    namespace: str | None = typer.Option(
        None, "--namespace", "-n", help="Namespace to look in with --kubernetes. Default: the pod's, or the context's."
    ),
    all_namespaces: bool = typer.Option(False, "--all-namespaces", "-A", help="Look in every namespace with --kubernetes."),
    config: Path | None = typer.Option(
        None, help="Settings file, sections 'collect' and 'kafka'. Default: ./trimtab.yaml if there."
    ),
    metrics_port: int = typer.Option(
        0, help="Port of this process's own metrics, on loopback or at TRIMTAB_METRICS_HOST. 0: any free one, printed at start."
    ),
    spans: Path | None = typer.Option(None, help="Write traces to this file, one JSON object a line."),
) -> None:
    """Scrapes Triton, Envoy, traffic and GPU pages every second and puts each as a Snapshot on Kafka (trimtab.telemetry).

    A target that fails in any way gives a Snapshot that says so. While Kafka is away, snapshots wait in memory, in order.
    SIGTERM or Ctrl-C delivers what is known and stops; the exit code is 1 when something could not be delivered.

    Targets come from a file (--targets) or from Kubernetes (--kubernetes); either is followed while it changes.

    Example: trimtab collect --targets targets.json --config trimtab.yaml --metrics-port 9464

    Example: trimtab collect --kubernetes --all-namespaces
    """
    import asyncio
    import logging

    from collectors.collector import run
    from collectors.settings import CollectSettings
    from trimtab import selfmetrics, settings, tracing
    from trimtab.bus import BusSettings, connect
    from trimtab.errors import Missing

    if (targets is not None) == kubernetes:
        raise typer.BadParameter("say where the targets are: either --targets FILE or --kubernetes")
    if not kubernetes and (namespace or all_namespaces):
        raise typer.BadParameter("--namespace and --all-namespaces go with --kubernetes")
    if namespace and all_namespaces:
        raise typer.BadParameter("--namespace and --all-namespaces exclude each other")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # says each attempt; the spool says once what it means
    collect_settings = settings.load(CollectSettings, config)
    bus = connect(settings.load(BusSettings, config))
    tracing.setup("collector", spans)
    metrics_host = selfmetrics.metrics_host()
    try:
        port = selfmetrics.serve("collector", metrics_port)
    except OSError as error:
        raise Missing(
            f"cannot listen on {metrics_host}:{metrics_port}: {error.strerror}; choose another with --metrics-port"
        ) from error
    source, where = _source(targets, namespace, all_namespaces)
    typer.echo(f"collector: targets from {where}, own metrics at http://{metrics_host}:{port}/metrics")
    if asyncio.run(run(collect_settings, source, bus)):
        raise typer.Exit(1)


def _source(targets: Path | None, namespace: str | None, all_namespaces: bool) -> tuple[Source, str]:
    """Where the targets come from, and that in words."""
    if targets is not None:
        from collectors.discovery import Discovery

        return Discovery(targets), str(targets)
    from collectors.discovery_kubernetes import KubernetesDiscovery
    from trimtab.kube import connect

    kube = connect()
    wanted = None if all_namespaces else namespace or kube.namespace
    return KubernetesDiscovery(kube, wanted), f"pods of {f'namespace {wanted}' if wanted else 'all namespaces'} at {kube.host}"


@replay_gpu.command()
def _replay_gpu(
    port: int = typer.Option(
        9400, help="Port to serve /metrics on, on loopback or at TRIMTAB_METRICS_HOST. 0: any free one, printed at start."
    ),
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
    from trimtab.selfmetrics import metrics_host

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    over = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: over.set())
    replay = Replay(gpus, speed=speed, assignment=assignment, faults=faults, hostname=hostname)
    address = metrics_host()
    at, stop = serve(replay, port, address)
    typer.echo(f"replaying recorded telemetry of {gpus} GPUs at http://{address}:{at}/metrics")
    over.wait()
    stop()

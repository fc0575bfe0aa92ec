"""`trimtab operator`."""

from __future__ import annotations

from pathlib import Path

import typer

operator = typer.Typer(add_completion=False)


@operator.command()
def _operator(
    namespace: str | None = typer.Option(
        None, help="Look after the ModelFleets of this namespace only. Default: the setting operator.namespace, or all."
    ),
    bootstrap: str | None = typer.Option(None, help="Kafka's address, host:port. Default: the setting kafka.bootstrap."),
    config: Path | None = typer.Option(
        None, help="Settings file, sections 'operator', 'autoscale' and 'kafka'. Default: ./trimtab.yaml if there."
    ),
    kubeconfig: Path | None = typer.Option(None, help="Default: the pod's own account, $KUBECONFIG, or ~/.kube/config."),
    context: str | None = typer.Option(None, help="Context of the kubeconfig."),
    metrics_port: int = typer.Option(0, help="Port of this process's own metrics. 0: any free one, printed at start."),
    health_port: int = typer.Option(0, help="Port of /healthz (the process runs) and /readyz (it sees the cluster). 0: none."),
    listen: str | None = typer.Option(None, help="Address of those ports. Default: loopback, or $TRIMTAB_METRICS_HOST."),
    spans: Path | None = typer.Option(None, help="Write traces to this file, one JSON object a line."),
) -> None:
    """Runs ModelFleets: scales, rolls out, rolls back and quarantines them, as their specs and the findings say.

    Several may run: one leads (a Lease says which), the others wait and take over within 10 seconds. Ends with 0 after
    SIGTERM, which gives the lead to another at once; ends with 1 when the lead was lost, to be started anew. Fleets go on
    serving without it.

    Example: trimtab operator --bootstrap kafka:9092 --namespace models
    """
    import logging
    import os
    import secrets
    import signal
    import socket
    import threading

    from autoscaler.operator.health import serve
    from autoscaler.operator.process import Operator
    from autoscaler.operator.settings import OperatorSettings
    from autoscaler.settings import AutoscaleSettings
    from trimtab import kube, selfmetrics, settings, tracing
    from trimtab.bus import BusSettings, connect

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("kafka", "urllib3", "kopf.objects", "kopf._core"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    chosen = settings.load(OperatorSettings, config)
    if namespace is not None:
        chosen = chosen.model_copy(update={"namespace": namespace})
    base = settings.load(AutoscaleSettings, config)
    topics = settings.load(BusSettings, config)
    bus = connect(topics.model_copy(update={"bootstrap": bootstrap}) if bootstrap else topics)
    tracing.setup("operator", spans)
    host = listen or selfmetrics.metrics_host()
    port = selfmetrics.serve("operator", metrics_port, host)
    identity = f"{os.environ.get('HOSTNAME') or socket.gethostname()}-{secrets.token_hex(3)}"
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    found = Operator(kube.connect(kubeconfig, context), bus, chosen, base, identity)
    if health_port:
        serve(health_port, host, lambda: found.seen)
    scope = f"namespace {chosen.namespace}" if chosen.namespace else "all namespaces"
    typer.echo(f"operator: {identity} looks after {scope}, own metrics at http://{host}:{port}/metrics")
    raise typer.Exit(0 if found.run(stop) else 1)

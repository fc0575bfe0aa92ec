"""`trimtab dashboards`, `trimtab rules` and `trimtab metrics`."""

from __future__ import annotations

from pathlib import Path

import typer

dashboards = typer.Typer(add_completion=False, no_args_is_help=True, help="Grafana dashboards, as code.")
rules = typer.Typer(add_completion=False, no_args_is_help=True, help="Recording rules and alerts for Prometheus.")
metrics = typer.Typer(add_completion=False)


@dashboards.callback()
def _dashboards() -> None:
    """Grafana dashboards, as code: write them for provisioning, or push them to a running Grafana."""


@dashboards.command("write")
def _write(
    folder: Path = typer.Argument(..., help="Folder for the dashboards' JSON and a provider file. Made if it is not there."),
    path: str = typer.Option("", help="The folder as Grafana sees it, for the provider file. Default: the same folder."),
) -> None:
    """Write the dashboards for provisioning: Grafana loads them at start and when they change.

    Example: trimtab dashboards write /etc/grafana/trimtab --path /etc/grafana/trimtab
    """
    from dashboards.write import dashboard_files, write

    files = dashboard_files(path or str(folder.absolute()))
    changed = write(folder, files)
    typer.echo(f"{len(files)} files in {folder}, {len(changed)} of them changed")


@dashboards.command("push")
def _push(
    url: str = typer.Option(..., help="Address of Grafana, such as https://grafana.example.org."),
    token_file: Path = typer.Option(..., help="File with a service account's token: role Editor, Admin with --prometheus."),
    prometheus: str | None = typer.Option(
        None, help="Address of Prometheus as Grafana reaches it: also makes the data source. Default: leave data sources alone."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would change, with a diff."),
    force: bool = typer.Option(False, "--force", help="Overwrite and remove dashboards of ours that were edited by hand, too."),
) -> None:
    """Make a running Grafana's Trimtab dashboards those of this version; pushing again changes nothing.

    Removes what is no longer part of Trimtab (only its own), and stops before any change at a dashboard that was edited by hand.

    Example: trimtab dashboards push --url http://127.0.0.1:3000 --token-file grafana.token --prometheus http://127.0.0.1:9090
    """
    from dashboards.grafana import Grafana, read_token
    from dashboards.push import push

    grafana = Grafana.at(url, read_token(token_file))
    push(grafana, prometheus=prometheus, dry_run=dry_run, force=force, say=typer.echo)


@rules.callback()
def _rules() -> None:
    """Recording rules and alerts for Prometheus, each alert with a runbook."""


@rules.command("write")
def _rules_write(
    folder: Path = typer.Argument(..., help="Folder for the rule files. Made if it is not there."),
    runbooks: str = typer.Option("", help="Address under which docs/runbooks is served; alerts link to it."),
    samples: bool = typer.Option(True, help="Also write a prometheus.yml and an alertmanager.yml to start from."),
) -> None:
    """Write the recording rules and alerts, and configurations to start from.

    Example: trimtab rules write /etc/prometheus/trimtab --runbooks https://docs.example.org/trimtab/runbooks
    """
    from dashboards.rules.files import files
    from dashboards.rules.model import RUNBOOKS
    from dashboards.write import write

    made = files(runbooks or RUNBOOKS, samples)
    changed = write(folder, made)
    typer.echo(f"{', '.join(made)} in {folder}, {len(changed)} of them changed")


@metrics.command()
def _metrics(
    kafka: str | None = typer.Option(
        None, "--kafka", "--bootstrap", help="Kafka's address, host:port. Default: section `kafka` of trimtab.yaml."
    ),
    port: int = typer.Option(9104, help="Serve /metrics on this port. 0: any free one, printed at start."),
    host: str = typer.Option("127.0.0.1", help="Listen on this address. Other than loopback: anyone who reaches it can read."),
    config: Path | None = typer.Option(None, help="Settings file, sections `metrics` and `kafka`. Default: ./trimtab.yaml."),
) -> None:
    """Show to Prometheus what the topics say: scores, findings, decisions, replicas, promises, lag.

    Reads only and commits nothing. One per Prometheus is enough, and two would count twice. SIGTERM or Ctrl-C stops it.

    Example: trimtab metrics --kafka 127.0.0.1:9092 --port 9104
    """
    import logging
    import signal
    import threading

    from dashboards import exporter
    from dashboards.settings import AlarmSettings, MetricsSettings
    from trimtab import settings
    from trimtab.bus import BusSettings, connect

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kafka").setLevel(logging.ERROR)  # what goes wrong is said in our own words
    bus = settings.load(BusSettings, config)
    bus = bus.model_copy(update={"bootstrap": kafka}) if kafka else bus
    chosen, alarm = settings.load(MetricsSettings, config), settings.load(AlarmSettings, config)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watch = exporter.watch_lag(bus, chosen)
    try:
        exporter.run(connect(bus), chosen, alarm, stop, host=host, port=port)
    finally:
        watch.stop()

"""`trimtab detect` and `trimtab train`."""

from __future__ import annotations

from pathlib import Path

import typer

detect = typer.Typer(help="Detect: the Flink job from telemetry to scores and findings.", no_args_is_help=True)
train = typer.Typer(help="Train the learned detectors.")

_KAFKA = typer.Option(
    None, "--kafka", "--bootstrap", help="Kafka's address, host:port. Default: section `kafka` of trimtab.yaml."
)
_CONFIG = typer.Option(None, "--config", help="Settings file. Default: trimtab.yaml here, if there is one.")


@detect.callback()
def _detect() -> None:
    """Detect: the Flink job from telemetry to scores and findings."""


@detect.command("run")
def detect_run(
    checkpoints: Path = typer.Option(..., help="Folder of checkpoints. The newest usable one there is restored."),
    kafka: str | None = _KAFKA,
    config: Path | None = _CONFIG,
    log_dir: Path = typer.Option(Path(".trimtab/detect"), help="Folder of flink.log and the heartbeat."),
    jars: Path | None = typer.Option(
        None, envvar="TRIMTAB_FLINK_JARS", help="Folder with Flink's Kafka connector. Default: where `trimtab doctor` keeps it."
    ),
    health_port: int = typer.Option(0, help="Answers GET / on this port with 200 once the job processes. 0: a free one."),
    health_host: str = typer.Option("127.0.0.1", help="The address of that port; 0.0.0.0 in a pod, for its probes."),
    cluster: str | None = typer.Option(
        None,
        help="Run the job on the Flink cluster whose REST API is at this host:port, and watch over it from here. It must have "
        "the jars and Trimtab's packages (the image trimtab-detect), and see --checkpoints under the same path. "
        "[default: a mini-cluster in this process]",
        show_default=False,
    ),
    rest_port: int = typer.Option(0, help="Flink's own REST API on this loopback port. 0: a free one."),
    spans: Path | None = typer.Option(None, help="Write OpenTelemetry spans to this file, one JSON object a line."),
) -> None:
    """Run the job until it is stopped: on Flink's mini-cluster in this process, or on the cluster that --cluster names.

    Example: trimtab detect run --kafka 127.0.0.1:9092 --checkpoints /var/lib/trimtab/checkpoints --health-port 9101
    """
    from detectors import service
    from detectors.flink_env import FlinkSettings
    from detectors.settings import DetectSettings
    from trimtab import settings
    from trimtab.bus import BusSettings
    from trimtab.cache import cache_folder

    service.set_up_logging()
    bus = settings.load(BusSettings, config)
    cache = cache_folder()
    service.run(
        service.Service(
            bus=bus.model_copy(update={"bootstrap": kafka}) if kafka else bus,
            detect=settings.load(DetectSettings, config),
            flink=FlinkSettings(
                jars=jars or cache / "flink-jars",
                logs=log_dir,
                checkpoints=checkpoints,
                rest_port=rest_port,
                shared_classes=next(iter(cache.glob("jdk-*.jsa")), None),
                cluster=cluster,
            ),
            health_port=health_port,
            health_host=health_host,
            spans=spans,
        )
    )


@train.callback(invoke_without_command=True)
def train_run(
    fleet: str = typer.Option(..., help="The fleet to train for."),
    models: Path = typer.Option(..., help="Folder for trained models; each goes into a sub-folder named by its digest."),
    from_file: Path | None = typer.Option(None, "--from", help="Train from this file of snapshots, one JSON object a line."),
    from_topic: bool = typer.Option(
        False, "--from-topic", help="Train from the fleet's telemetry on Kafka, waiting until there is enough."
    ),
    ticks: int = typer.Option(45, min=2, help="How many ticks (seconds, by default) of telemetry are enough."),
    timeout: float = typer.Option(600.0, help="How long to wait for them, in seconds."),
    kafka: str | None = _KAFKA,
    config: Path | None = _CONFIG,
    publish: bool = typer.Option(True, help="Tell the running job (topic trimtab.models) to use the new model."),
) -> None:
    """Train the Isolation Forest and the forecaster on what is normal for a fleet.

    Example: trimtab train --fleet intent --from-topic --kafka 127.0.0.1:9092 --models /var/lib/trimtab/models
    """
    from detectors import train_shell
    from detectors.settings import DetectSettings
    from trimtab import settings
    from trimtab.bus import BusSettings
    from trimtab.errors import SettingsError

    if from_topic == (from_file is not None):
        raise SettingsError("say where the telemetry comes from: either --from-topic or --from FILE")
    bus = settings.load(BusSettings, config)
    digest = train_shell.run(
        train_shell.Training(
            fleet=fleet,
            models=models,
            bus=bus.model_copy(update={"bootstrap": kafka}) if kafka else bus,
            detect=settings.load(DetectSettings, config),
            from_file=from_file,
            ticks=ticks,
            timeout=timeout,
            # Without a broker at hand, training from a file still gives a model.
            publish=publish and (from_topic or kafka is not None),
        )
    )
    typer.echo(f"model {digest} is in {models / digest}")

"""Runs the Flink job as a process: restores, watches, reports its health, and ends with everything it started."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client import REGISTRY

from detectors import checkpoints, cluster, flink_env, health
from detectors.flink_env import FlinkSettings
from detectors.health_metrics import HealthMetrics
from detectors.settings import DetectSettings
from trimtab import selfmetrics
from trimtab.bus import BusSettings, connect
from trimtab.errors import Unavailable

log = logging.getLogger(__name__)

NAME = "trimtab-detectors"


@dataclass(frozen=True)
class Service:
    """What `run` needs."""

    bus: BusSettings
    detect: DetectSettings
    flink: FlinkSettings
    health_port: int = 0
    health_host: str = "127.0.0.1"
    spans: Path | None = None


class _CannotRestore(Exception):
    """The checkpoint is damaged, or of another program."""


def run(service: Service) -> None:
    """Runs until SIGTERM or SIGINT.

    Raises `Missing` without Java or the connector, `Unavailable` without Kafka or when the job fails for good.
    """
    service.flink.logs.mkdir(parents=True, exist_ok=True)
    heartbeat = service.flink.logs / "heartbeat"
    heartbeat.unlink(missing_ok=True)
    state = health.Health(heartbeat)
    selfmetrics.describe("detectors")
    REGISTRY.register(HealthMetrics(lambda: state.state, heartbeat, service.flink.checkpoints))
    server = health.serve(state, service.health_port, service.health_host)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    # Known in advance, because the API is asked why a restore failed.
    flink = replace(service.flink, rest_port=service.flink.rest_port or _free_port())
    again = False
    try:
        # On a cluster what is not there yet comes by itself, and starting anew would only come back later each time.
        _wait_for_topics(service.bus, math.inf if flink.cluster else 60.0)
        if flink.cluster:
            cluster.make_room(flink.cluster, NAME)
        restore = next(iter(checkpoints.completed(flink.checkpoints)), None)
        log.info("starting the job %s", f"from {restore}" if restore else "without a checkpoint")
        state.restored = str(restore) if restore else None
        try:
            _run_job(replace(service, flink=flink), restore, state)
        except _CannotRestore as error:
            assert restore is not None
            log.error("checkpoint %s cannot be used (%s); going on with an older one or Kafka's offsets", restore, error)
            checkpoints.set_aside(restore)
            again = True
    finally:
        server.shutdown()
        _end_children()
    if again:
        # Flink's JVM may not have survived, and PyFlink starts but one per process.
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606


def _stop(*_: object) -> None:
    raise SystemExit(0)


def _run_job(service: Service, restore: Path | None, state: health.Health) -> None:
    environment = flink_env.start(service.flink, restore)
    from detectors import job  # imports PyFlink, which wants the process prepared

    beat = cluster.HEARTBEAT if service.flink.cluster else state.heartbeat
    job.build(environment, service.bus.bootstrap, service.detect, beat, service.spans)
    client: Any = None
    try:
        client = environment.execute_async(NAME)
        _follow(client, service.flink, restore, state)
    except SystemExit:
        raise
    except _CannotRestore:
        _cancel(client)
        raise
    except Exception as error:
        words = _first_line(error)
        if restore and state.beat_age(time.time()) is None:
            raise _CannotRestore(words) from error
        raise Unavailable(f"the Flink job ended: {words}") from error
    finally:
        if client is not None and state.state not in ("FAILED", "CANCELED"):
            _cancel(client)


def _follow(client: Any, flink: FlinkSettings, restore: Path | None, state: health.Health) -> None:
    job_id = str(client.get_job_id())
    address = flink.cluster or f"127.0.0.1:{flink.rest_port}"
    while True:
        state.state = str(client.get_job_status().result()).removeprefix("JobStatus.")
        if state.state == "FAILED":
            client.get_job_execution_result().result()  # raises what it failed of
        if state.state in ("FAILED", "CANCELED", "FINISHED"):
            raise Unavailable(f"the job is {state.state}")
        if flink.cluster and cluster.processes(flink.cluster, job_id):
            state.heartbeat.write_text(f"{time.time()}\n")  # the job's own lies on another machine
        if restore and state.beat_age(time.time()) is None:
            reason = _restore_failure(address, job_id)
            if reason:
                raise _CannotRestore(reason)
        time.sleep(0.5)


def _restore_failure(address: str, job_id: str) -> str | None:
    """Why the tasks fail, if it is the state they restore from; they would try the same again for ever."""
    try:
        answer = httpx.get(f"http://{address}/jobs/{job_id}/exceptions", timeout=2.0).json()
        entries = answer["exceptionHistory"]["entries"]
    except (httpx.HTTPError, ValueError, KeyError):
        return None
    for entry in entries:
        text = entry.get("stacktrace", "")
        if any(
            word in text for word in ("BackendBuildingException", "StateInitializationContext", "restoring", "RestoreOperation")
        ):
            return str(
                text.strip().splitlines()[-1] if "Caused by" not in text else text.split("Caused by: ")[-1].splitlines()[0]
            )
    return None


def _cancel(client: Any) -> None:
    """The last checkpoint stays; what came after it is read again."""
    with contextlib.suppress(Exception):
        client.cancel().result()


def _wait_for_topics(settings: BusSettings, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return connect(settings).ensure_topics()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            log.warning("Kafka at %s does not answer yet", settings.bootstrap)
            time.sleep(1.0)


def _end_children() -> None:
    """The JVM and the worker end by themselves when this process does; waiting for them leaves nothing behind."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    _, alive = psutil.wait_procs(children, timeout=5)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _first_line(error: Exception) -> str:
    """Of a Java stack trace the innermost cause says most."""
    text = str(error)
    causes = [line for line in text.splitlines() if line.startswith("Caused by: ")]
    return (
        causes[-1].removeprefix("Caused by: ")
        if causes
        else text.strip().splitlines()[0]
        if text.strip()
        else type(error).__name__
    )[:300]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def set_up_logging() -> None:
    """One line per event on standard error; the supervisor keeps it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("kafka", "httpx", "apache_beam", "py4j"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")

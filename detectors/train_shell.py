"""Training as a command: gathers telemetry, trains, keeps the model under its digest, and tells the running job."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from detectors import models_store, training
from detectors.settings import DetectSettings
from trimtab.bus import Bus, BusSettings, connect
from trimtab.codec import decode_as
from trimtab.errors import Missing, Undecodable
from trimtab.messages import MODELS, TELEMETRY, DetectorModel, Snapshot

Report = Callable[[str, float], None]
"""Takes what is being done, and how far it is, 0..1."""

NEWEST_SECONDS = 3600.0
"""Training takes at most the last hour: what was normal before that may be so no longer."""


@dataclass(frozen=True)
class Training:
    """What `run` needs. `from_file` None means from the topic."""

    fleet: str
    models: Path
    bus: BusSettings
    detect: DetectSettings
    from_file: Path | None = None
    ticks: int = 45
    timeout: float = 600.0
    publish: bool = True


def run(wanted: Training) -> str:
    """Trains and returns the digest of the model, which is then in `models/<digest>`.

    Raises `Missing` when there is not enough telemetry, `Undecodable` when the file holds something else.
    """
    with _shown() as report:
        if wanted.from_file:
            snapshots = list(read_file(wanted.from_file, wanted.fleet))
        else:
            snapshots = gather(connect(wanted.bus), wanted, report)
        models = training.train(snapshots, wanted.fleet, wanted.detect, report)
        digest = keep(models, wanted.models)
    if wanted.publish:
        bus = connect(wanted.bus)
        bus.ensure_topics()
        announce(bus, wanted.fleet, wanted.models / digest, digest, models)
    return digest


def read_file(file: Path, fleet: str) -> Iterator[Snapshot]:
    """The snapshots of a fleet in a file of JSON lines. Raises `Missing`, or `Undecodable` with file and line."""
    try:
        lines = file.open("rb")
    except OSError as error:
        raise Missing(f"{file} cannot be read: {error.strerror}") from error
    with lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                snapshot = decode_as(Snapshot, line)
            except Undecodable as error:
                raise Undecodable(f"{file}:{number}: {error}") from error
            if snapshot.fleet == fleet:
                yield snapshot


def gather(bus: Bus, wanted: Training, report: Report, clock: Callable[[], float] = time.monotonic) -> list[Snapshot]:
    """Reads the fleet's telemetry from its beginning until it spans `ticks` ticks and the backlog is read.

    Raises `Missing` when it does not come to that within `timeout` seconds.
    """
    consumer = bus.consumer([TELEMETRY], group=None, start="earliest")
    snapshots: list[Snapshot] = []
    ticks: set[int] = set()
    deadline = clock() + wanted.timeout
    try:
        while True:
            records = consumer.poll(timeout=0.5)
            for record in records:
                message = record.message
                if isinstance(message, Snapshot) and message.fleet == wanted.fleet and message.up:
                    snapshots.append(message)
                    ticks.add(math.floor(message.time / wanted.detect.interval))
            newest = max((snapshot.time for snapshot in snapshots), default=0.0)
            # Once the topic is read up to about now, a poll brings one tick's worth; a backlog brings far more.
            caught_up = not records or max(record.time for record in records) > time.time() - 2.0
            report(f"telemetry of {wanted.fleet}: {len(ticks)} of {wanted.ticks} ticks", min(1.0, len(ticks) / wanted.ticks))
            if len(ticks) >= wanted.ticks and caught_up:
                return [snapshot for snapshot in snapshots if snapshot.time >= newest - NEWEST_SECONDS]
            if clock() > deadline:
                raise Missing(
                    f"fleet {wanted.fleet} sent {len(ticks)} ticks of telemetry within {wanted.timeout:g} s, "
                    f"training needs {wanted.ticks}"
                )
    finally:
        consumer.close()


def keep(models: models_store.Models, folder: Path) -> str:
    """Saves under `folder/<digest>` at once or not at all; returns the digest."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
    digest = models_store.save(models, scratch)
    if (folder / digest).exists():  # the same content was saved before
        shutil.rmtree(scratch)
    else:
        scratch.chmod(0o755)
        scratch.rename(folder / digest)
    return digest


def announce(bus: Bus, fleet: str, path: Path, digest: str, models: models_store.Models) -> None:
    """Tells the running job that a model is ready."""
    producer = bus.producer()
    producer.send(
        MODELS,
        DetectorModel(
            fleet=fleet,
            path=str(path.resolve()),
            digest=digest,
            trained_from=models.trained_from,
            trained_to=models.trained_to,
            time=time.time(),
        ),
    )
    producer.flush()
    producer.close()


@contextlib.contextmanager
def _shown() -> Iterator[Report]:
    """A progress bar on standard error that the report moves."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=1.0)
        yield lambda what, share: progress.update(task, description=what, completed=share)

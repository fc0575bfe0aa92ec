"""An exporter in the format of DCGM's that replays recorded GPU telemetry, for machines without a GPU. It says so on its page.

Only recorded values are served, one recorded sample after the other; nothing is interpolated or invented. The recordings and
their licence are in ``collectors/recordings``.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector
from pydantic import Field, RootModel

from collectors.watched import Watched
from trimtab import yamlfile
from trimtab.errors import Missing

SOURCE = "GWDG GPU node telemetry, doi 10.5281/zenodo.19052367, CC BY 4.0"

HELP = {
    "DCGM_FI_DEV_GPU_TEMP": "GPU temperature (in C).",
    "DCGM_FI_DEV_MEMORY_TEMP": "Memory temperature (in C).",
    "DCGM_FI_DEV_POWER_USAGE": "Power draw (in W).",
    "DCGM_FI_DEV_GPU_UTIL": "GPU utilization (in %).",
    "DCGM_FI_DEV_MEM_COPY_UTIL": "Memory utilization (in %).",
    "DCGM_FI_DEV_SM_CLOCK": "SM clock frequency (in MHz).",
    "DCGM_FI_DEV_MEM_CLOCK": "Memory clock frequency (in MHz).",
    "DCGM_FI_DEV_FB_USED": "Framebuffer memory used (in MiB).",
    "DCGM_FI_DEV_FB_FREE": "Framebuffer memory free (in MiB).",
    "DCGM_FI_DEV_XID_ERRORS": "Value of the last XID error encountered.",
}
COUNTERS = ("_REMAPPED_ROWS", "_REPLAY_COUNTER", "_BANDWIDTH_TOTAL")

Kind = Literal["normal", "xid79"]
Sample = dict[str, float]  # field -> value; a field that was not recorded is not there


@dataclass(frozen=True)
class Recording:
    """What one GPU did, sample by sample."""

    kind: Kind
    uuid: str
    model: str
    samples: list[Sample]


def recordings() -> list[Recording]:
    """The recordings that come with the package, normal ones first."""
    packed = (resources.files("collectors") / "recordings" / "dcgm-a100.csv.gz").read_bytes()
    rows = csv.DictReader(io.StringIO(gzip.decompress(packed).decode()))
    found: list[Recording] = []
    for (kind, uuid, model), samples in itertools.groupby(rows, lambda row: (row["kind"], row["uuid"], row["model"])):
        values = [{name: float(value) for name, value in row.items() if name.startswith("DCGM_") and value} for row in samples]
        found.append(Recording("xid79" if kind == "xid79" else "normal", uuid, model, values))
    return found


@dataclass
class _Gpu:
    number: int
    uuid: str
    normal: Recording
    fault: Recording
    faulty_since: float | None = None

    def sample(self, now: float, speed: float) -> Sample:
        """The recorded sample of this moment; a normal recording is played again and again, a fault ends at its last sample."""
        if self.faulty_since is not None:
            played = self.fault.samples
            return played[min(int((now - self.faulty_since) * speed), len(played) - 1)]
        played = self.normal.samples
        return played[int(now * speed) % len(played)]


class _Assignment(
    RootModel[dict[Annotated[str, Field(pattern=r"^\d{1,4}$")], Annotated[str, Field(min_length=1, max_length=253)]]]
):
    """GPU number -> replica that it serves."""


class _Faults(RootModel[dict[Annotated[str, Field(min_length=1)], Literal["xid79"]]]):
    """GPU number or replica -> the recorded fault that it plays."""


def _read_assignment(path: Path) -> dict[str, str]:
    return yamlfile.validate(yamlfile.read(path), _Assignment).root


def _read_faults(path: Path) -> dict[str, str]:
    return dict(yamlfile.validate(yamlfile.read(path), _Faults).root)


class Replay(Collector):
    """What the exporter serves at this moment. Looks at both files whenever it is scraped.

    A fault named by replica stays with the replica: a GPU that is given to another one is healthy again, as after a reset.
    """

    def __init__(
        self,
        gpus: int,
        *,
        speed: float = 1.0,
        assignment: Path | None = None,
        faults: Path | None = None,
        hostname: str = "gpu-node",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`speed` is in recorded samples per second. Raises `SettingsError` when a file is there and wrong."""
        normal = [recording for recording in recordings() if recording.kind == "normal"]
        broken = [recording for recording in recordings() if recording.kind == "xid79"]
        self._gpus = [
            _Gpu(i, f"{normal[i % len(normal)].uuid}-{i}", normal[i % len(normal)], broken[i % len(broken)]) for i in range(gpus)
        ]
        self._speed, self._hostname, self._clock, self._start = speed, hostname, clock, clock()
        self._assignment: Watched[dict[str, str]] | None = Watched(assignment, _read_assignment, {}) if assignment else None
        self._faults: Watched[dict[str, str]] | None = Watched(faults, _read_faults, {}) if faults else None
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """The metrics of all GPUs now, as prometheus-client asks for them."""
        with self._lock:
            served = list(self._now())
        info = GaugeMetricFamily(
            "trimtab_gpu_replay_info", "1: this page replays recorded telemetry, no GPU is measured.", labels=["source", "speed"]
        )
        info.add_metric([SOURCE, f"{self._speed:g}"], 1)
        yield info
        for field in sorted({field for _, sample in served for field in sample}):
            family = UnknownMetricFamily if field.endswith(COUNTERS) else GaugeMetricFamily
            metric: Metric = family(field, f"{HELP.get(field, 'DCGM field.')} REPLAY of recorded values, not measured here.")
            for labels, sample in served:
                if field in sample:
                    metric.add_sample(field, labels, sample[field])
            yield metric

    def _now(self) -> Iterator[tuple[dict[str, str], Sample]]:
        pods = self._content(self._assignment)
        faults = self._content(self._faults)
        now = self._clock() - self._start
        for gpu in self._gpus:
            pod = pods.get(str(gpu.number))
            faulty = str(gpu.number) in faults or pod in faults
            if not faulty:
                gpu.faulty_since = None
            elif gpu.faulty_since is None:
                gpu.faulty_since = now
            labels = {
                "gpu": str(gpu.number),
                "UUID": gpu.uuid,
                "device": f"nvidia{gpu.number}",
                "modelName": gpu.normal.model,
                "Hostname": self._hostname,
            }
            yield labels | ({"pod": pod} if pod else {}), gpu.sample(now, self._speed)

    @staticmethod
    def _content(file: Watched[dict[str, str]] | None) -> dict[str, str]:
        if file is None:
            return {}
        file.refresh()
        return file.content


def serve(replay: Replay, port: int, host: str = "127.0.0.1") -> tuple[int, Callable[[], None]]:
    """Serves the replay at ``http://host:port/metrics``; returns the port (port 0: any free one) and a function that stops it.

    Raises `Missing` when the port is taken.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(replay)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise Missing(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return int(server.server_port), stop

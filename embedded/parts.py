"""How each part of a stack is started as a child process: its command, its free ports, and when it is ready."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedded import broker, java, ports
from embedded.gateway_files import GatewayFiles
from embedded.host.state import GPU_SLOTS
from embedded.host.targets import Target, TargetsFile
from embedded.supervisor import Event, Process, ProcessFailed, ProcessSpec, Supervisor
from serving_stack import export
from trimtab import settings
from trimtab.bus import Bus, BusSettings, connect
from trimtab.errors import Unavailable

GPU_SAMPLES_PER_SECOND = 1.0
"""The replayed node plays its ten-minute samples a second each, so that a fault of hours fits into a demo."""


class Parts:
    """Starts the parts of one fleet's stack; each method returns when its part is ready and raises `ProcessFailed` otherwise.

    `addresses` gets each part's URL or host:port by name. Scrape targets are added as their parts get ready.
    """

    def __init__(
        self,
        folder: Path,
        fleet: str,
        model: str,
        supervisor: Supervisor,
        targets: TargetsFile,
        on_event: Callable[[Event], None],
    ) -> None:
        self.addresses: dict[str, str] = {}
        self.gpus_file = folder / "gpus.json"
        self.gpu_faults_file = folder / "gpu-faults.json"
        self._folder, self._fleet, self._model, self._supervisor, self._targets = folder, fleet, model, supervisor, targets
        self._on_event = on_event

    def bus(self) -> Bus:
        """A new connection to Kafka."""
        return connect(settings.load(BusSettings).model_copy(update={"bootstrap": self.addresses["kafka"]}))

    def exported(self, adapter: int) -> Path:
        """The folder of an exported adapter, exported first if need be."""
        cache = export.default_cache()
        if (folder := export.exported(adapter, cache)) is not None:
            return folder
        # In a process of its own: it needs torch, and can be stopped at any time.
        argv = ["models", "export", "--adapter", str(adapter), "--cache", str(cache)]
        process = self._supervisor.spawn(self._trimtab(f"export-{adapter}", argv))
        if process.wait_ended() != 0 or (folder := export.exported(adapter, cache)) is None:
            raise ProcessFailed(f"The model could not be exported.{process.last_lines()}")
        return folder

    def kafka(self) -> None:
        """The broker, and then its topics."""
        with self.step("kafka-jars", "Kafka's jars"):
            java.jars("kafka")
        folder = self._folder / "kafka"

        def make(given: list[int]) -> ProcessSpec:
            port, controller = given
            broker.format_storage(folder, port, controller)
            argv, env = broker.broker_process(folder, port, controller)
            self.addresses["kafka"] = f"127.0.0.1:{port}"
            return ProcessSpec("kafka", argv, env, ready=self._kafka_answers, restart="on_failure", stop_timeout=10.0)

        self._supervisor.start_on_free_ports(2, make)
        with self.step("topics", "Kafka's topics"):
            self.bus().ensure_topics()

    def _kafka_answers(self) -> bool:
        try:
            broker.wait_ready(self.addresses["kafka"], timeout=2.0)
        except Unavailable:
            return False
        return True

    def gateway(self, files: GatewayFiles) -> None:
        """Envoy on the files that the host keeps."""

        def make(given: list[int]) -> ProcessSpec:
            process = files.place(given[0], given[1])
            self.addresses |= {"gateway": process.url, "gateway_admin": f"http://127.0.0.1:{given[1]}"}
            return ProcessSpec("gateway", process.argv, process.env, ready=process.ready_url, restart="on_failure")

        given = self._supervisor.start_on_free_ports(2, make)
        target = Target(f"127.0.0.1:{given[1]}", "gateway", "gateway", self._fleet, path="/stats/prometheus")
        self._targets.set("gateway", [target])

    def gpus(self) -> None:
        """The exporter that replays recorded GPU telemetry."""

        def make(given: list[int]) -> ProcessSpec:
            argv = ["replay-gpu", "--port", str(given[0]), "--gpus", str(GPU_SLOTS), "--speed", str(GPU_SAMPLES_PER_SECOND)]
            argv += ["--assignment", str(self.gpus_file), "--faults", str(self.gpu_faults_file)]
            return self._trimtab("replay-gpu", argv, ready=f"http://127.0.0.1:{given[0]}/metrics", restart="on_failure")

        (port,) = self._supervisor.start_on_free_ports(1, make)
        self.addresses["gpu"] = f"http://127.0.0.1:{port}/metrics"
        self._targets.set("gpu", [Target(f"127.0.0.1:{port}", "gpu-node", "gpu", self._fleet)])

    def collector(self) -> None:
        """Scrapes all targets into Kafka."""
        self._reader("collect", ["collect", "--targets", str(self._targets.path)], "--metrics-port", "/metrics")

    def autoscaler(self) -> None:
        """Decides and acts, through the host."""
        argv = ["autoscale", "--fleet", self._fleet, "--host", self.addresses["host"]]
        argv += ["--state", str(self._folder / "autoscaler-state.json")]
        self._reader("autoscale", argv, "--metrics-port", "/metrics")

    def notifier(self) -> None:
        """Webhooks, where the settings file in the working directory names receivers."""
        from dashboards.notify.settings import NotifySettings  # where a scenario is played on a cluster, nothing of it is there

        if settings.load(NotifySettings).receivers:
            argv = ["notify", "--kafka", self.addresses["kafka"]]
            self._reader("notify", argv, "--metrics-port", "/metrics", stop_timeout=20.0)

    def detectors(self) -> None:
        """The Flink job."""
        with self.step("flink-jars", "Flink's Kafka connector"):
            jars = java.flink_jars()
        argv = ["detect", "run", "--checkpoints", str(self._folder / "checkpoints"), "--jars", str(jars)]
        argv += ["--kafka", self.addresses["kafka"], "--log-dir", str(self._folder / "logs" / "flink")]
        self._reader("detect", argv, "--health-port", "/", stop_timeout=10.0)

    def _reader(self, name: str, argv: list[str], port_option: str, path: str, stop_timeout: float = 5.0) -> None:
        """Start a part that reads Kafka and answers 200 on a port of its own when it works."""

        def make(given: list[int]) -> ProcessSpec:
            url = f"http://127.0.0.1:{given[0]}{path}"
            self.addresses[name] = url
            full = [*argv, port_option, str(given[0]), "--spans", str(self._folder / "spans" / f"{name}.jsonl")]
            return self._trimtab(name, full, ready=url, restart="on_failure", stop_timeout=stop_timeout, after=("kafka",))

        (self._folder / "spans").mkdir(exist_ok=True)
        self._supervisor.start_on_free_ports(1, make)

    def traffic(self, plan: Path, start_at: float | None = None) -> Process:
        """Send the traffic of a plan file with time zero at `start_at` (unix; default: now plus its warm-up).

        Writes `traffic.jsonl`, `requests.jsonl` and `traffic-summary.json` into the folder. Returns the process, which ends with
        the plan.
        """
        (port,) = ports.free_ports(1)
        argv = ["traffic", "--url", self.addresses["gateway"], "--model", self._model, "--plan", str(plan)]
        argv += ["--metrics-port", str(port), "--log", str(self._folder / "traffic.jsonl")]
        argv += ["--requests", str(self._folder / "requests.jsonl"), "--summary", str(self._folder / "traffic-summary.json")]
        if start_at is not None:
            argv += ["--start-at", repr(start_at)]
        url = f"http://127.0.0.1:{port}/metrics"
        process = self._supervisor.spawn(self._trimtab("traffic", argv, ready=url, stop_timeout=25.0))
        process.wait_ready()
        self.addresses["traffic"] = url
        self._targets.set("traffic", [Target(f"127.0.0.1:{port}", "traffic", "app", self._fleet)])
        return process

    def training(self, ticks: int = 45) -> Process:
        """Train the learned detectors on the stack's own telemetry, at low priority; the process ends by itself."""
        argv = ["train", "--fleet", self._fleet, "--models", str(self._folder / "models"), "--from-topic"]
        argv += ["--kafka", self.addresses["kafka"], "--ticks", str(ticks)]
        spec = self._trimtab("train", argv)
        return self._supervisor.spawn(replace(spec, argv=["nice", "-n", "10", *spec.argv]))

    def _trimtab(self, name: str, arguments: Sequence[str], **how: Any) -> ProcessSpec:
        """A `trimtab` command as a process that uses this stack's Kafka."""
        env = os.environ | {"TRIMTAB_KAFKA_BOOTSTRAP": self.addresses.get("kafka", ""), "PYTHONUNBUFFERED": "1"}
        if "kafka" not in self.addresses:
            del env["TRIMTAB_KAFKA_BOOTSTRAP"]
        return ProcessSpec(name, [sys.executable, "-m", "trimtab", *arguments], env, **how)

    @contextmanager
    def step(self, name: str, words: str) -> Iterator[None]:
        """Tell of a step that is no process: `started` and `ready` with how long it took."""
        began = time.monotonic()
        self._on_event(Event(time.time(), name, "started", words))
        yield
        self._on_event(Event(time.time(), name, "ready", f"{words} after {time.monotonic() - began:.1f} s"))

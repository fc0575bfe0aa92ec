"""The whole stack of one fleet on this machine: every part a child process, everything on free loopback ports.

with Stack(Path("/tmp/run"), spec, seed=7, on_event=print) as stack:
    stack.start_traffic(plan_file, start_at)
    stack.release(2)
    stack.inject("hang", stack.serving(1)[0])
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from embedded import broker, java, ports, runs
from embedded.faults import SLOW_SECONDS, Faults, ReplicaFaultKind, fault_file
from embedded.gateway_files import GatewayFiles
from embedded.host.fleet import FleetHost, Ports, ServingProcess
from embedded.host.server import HostServer
from embedded.host.state import GPU_SLOTS
from embedded.host.targets import Target, TargetsFile
from embedded.memory import check_memory
from embedded.supervisor import Event, Process, ProcessSpec, Row, Supervisor
from serving_stack import export, repository, triton
from serving_stack.fault import Fault
from trimtab import settings
from trimtab.bus import Bus, BusSettings, connect
from trimtab.errors import TrimtabError, Unavailable
from trimtab.messages import FLEETS, FleetPlan, FleetSpec, FleetState, PoolPlan

GPU_SAMPLES_PER_SECOND = 1.0
"""The replayed node plays its ten-minute samples a second each, so that a fault of hours fits into a demo."""


class Stack:
    """One running stack. `start` brings everything up, `stop` takes everything down; `with` does both.

    `on_event` hears of steps and processes as they start, get ready or end; threads call it, and it must be quick.
    """

    def __init__(self, folder: Path, fleet: FleetSpec, seed: int, on_event: Callable[[Event], None] = lambda event: None) -> None:
        self.folder = folder.absolute()
        self.fleet = fleet
        self.seed = seed
        self.addresses: dict[str, str] = {}
        """URL or host:port by name: kafka, gateway, gateway_admin, host, gpu, traffic, collect, autoscale, detect."""
        self._on_event = on_event
        self.folder.mkdir(parents=True, exist_ok=True)
        self._store = self.folder / "store"
        self._replicas = self.folder / "replicas"
        self._gateway = GatewayFiles(self.folder / "gateway", fleet.fleet)
        self._registered: Path | None = None
        self._supervisor: Supervisor | None = None
        self._stopping = threading.Event()
        self._peak = 0

    def __enter__(self) -> Stack:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Bring everything up; returns when all parts and the first replicas are ready.

        Raises `Missing` (memory, jars, model, Triton, Envoy) or `ProcessFailed` with the last lines of the log; call `stop` then.
        """
        check_memory()
        started = time.time()
        supervisor = self._supervisor = Supervisor(self.folder / "logs", self._on_event)
        self._targets = TargetsFile(self.folder / "targets.json")
        self._gpus_file = self.folder / "gpus.json"
        self._host = FleetHost(
            self.fleet.fleet,
            supervisor,
            self._replica,
            self._gateway.publish,
            self._targets,
            self._gpus_file,
            stop_timeout=triton.EXIT_TIMEOUT_SECONDS + 1,
        )
        self.faults = Faults(self._host, self._targets, self._replicas, self.folder / "gpu-faults.json")
        self._server = HostServer({self.fleet.fleet: self._host})
        self.addresses["host"] = self._server.url
        with ThreadPoolExecutor(6, thread_name_prefix="start") as pool:
            kafka = pool.submit(self._start_kafka)
            replicas = pool.submit(self._start_replicas)
            steps = [pool.submit(self._start_gateway), pool.submit(self._start_gpus)]
            steps += [pool.submit(self._once, kafka, step) for step in (self._start_detectors, self._start_collector)]
            steps += [pool.submit(self._once, kafka, self._once, replicas, self._start_autoscaler)]
            try:
                for step in as_completed([kafka, replicas, *steps]):
                    step.result()
            except BaseException:
                self._stopping.set()
                supervisor.stop()  # else the other steps would wait for what does not come
                raise
        self._registered = runs.register(self.folder, self.fleet.fleet, started, self.addresses)

    @staticmethod
    def _once(before: Future[None], step: Callable[..., None], *arguments: object) -> None:
        before.result()
        step(*arguments)

    def bus(self) -> Bus:
        """A new connection to the stack's Kafka."""
        return connect(self._bus_settings())

    @property
    def supervisor(self) -> Supervisor:
        """The child processes: `supervisor.table()`, `supervisor.process("kafka")`."""
        if self._supervisor is None:
            raise TrimtabError("The stack was not started.")
        return self._supervisor

    @property
    def peak_memory_bytes(self) -> int:
        """Most memory that this process and everything below it had at a time (shared pages once), sampled each second."""
        return self._supervisor.peak_memory_bytes if self._supervisor else self._peak

    def start_traffic(self, plan: Path, start_at: float | None = None) -> Process:
        """Send the traffic of a plan file with time zero at `start_at` (unix; default: now plus its warm-up).

        Writes `traffic.jsonl`, `requests.jsonl` and `traffic-summary.json` into the folder. Returns the process, which ends with
        the plan.
        """
        (port,) = ports.free_ports(1)
        argv = ["traffic", "--url", self.addresses["gateway"], "--model", self.fleet.model, "--plan", str(plan)]
        argv += ["--metrics-port", str(port), "--log", str(self.folder / "traffic.jsonl")]
        argv += ["--requests", str(self.folder / "requests.jsonl"), "--summary", str(self.folder / "traffic-summary.json")]
        if start_at is not None:
            argv += ["--start-at", repr(start_at)]
        url = f"http://127.0.0.1:{port}/metrics"
        process = self.supervisor.spawn(self._trimtab("traffic", argv, ready=url, stop_timeout=25.0))
        process.wait_ready()
        self.addresses["traffic"] = url
        self._targets.set("traffic", [Target(f"127.0.0.1:{port}", "traffic", "app", self.fleet.fleet)])
        return process

    def start_training(self, ticks: int = 45) -> Process:
        """Train the learned detectors on the stack's own telemetry, at low priority; the process ends by itself."""
        argv = ["train", "--fleet", self.fleet.fleet, "--models", str(self.folder / "models"), "--from-topic"]
        argv += ["--kafka", self.addresses["kafka"], "--ticks", str(ticks)]
        spec = self._trimtab("train", argv)
        return self.supervisor.spawn(replace(spec, argv=["nice", "-n", "10", *spec.argv]))

    def release(self, version: int, fault: Fault | None = None) -> None:
        """Publish a version into the repository and release it; `fault` makes each of its replicas have that fault."""
        self._publish_version(version, fault)
        self.fleet = msgspec.structs.replace(self.fleet, version=version, time=time.time())
        self._send_spec()

    def inject(self, kind: ReplicaFaultKind, replica: str, seconds: float = SLOW_SECONDS) -> None:
        """See `Faults.inject`."""
        self.faults.inject(kind, replica, seconds)

    def telemetry_outage(self, which: str | Sequence[str], seconds: float) -> list[str]:
        """See `Faults.telemetry_outage`."""
        return self.faults.telemetry_outage(which, seconds)

    def observe(self) -> FleetState:
        """Replicas and weights as they are now."""
        return self._host.observe()

    def serving(self, version: int | None = None) -> list[str]:
        """Names of the replicas in traffic, of one version or (None) of the stable pool, oldest first."""
        return [
            replica.name
            for pool in self.observe().pools
            if (pool.role == "stable" if version is None else pool.version == version)
            for replica in pool.replicas
            if replica.in_traffic and replica.phase == "ready"
        ]

    def status(self) -> list[Row]:
        """The table of processes."""
        return self.supervisor.table()

    def stop(self) -> None:
        """Lift faults, stop everything in reverse order; nothing is left. Calling it again changes nothing."""
        supervisor, self._supervisor = self._supervisor, None
        if self._registered is not None:
            runs.forget(self._registered)
            self._registered = None
        if supervisor is None:
            return
        self._stopping.set()
        if hasattr(self, "faults"):
            self.faults.lift()
            self._server.close()
            self._host.close()
        supervisor.stop()
        self._targets.close()
        self._peak = supervisor.peak_memory_bytes

    def _start_kafka(self) -> None:
        with self._step("kafka-jars", "Kafka's jars"):
            java.jars("kafka")
        folder = self.folder / "kafka"

        def make(given: list[int]) -> ProcessSpec:
            port, controller = given
            broker.format_storage(folder, port, controller)
            argv, env = broker.broker_process(folder, port, controller)
            self.addresses["kafka"] = f"127.0.0.1:{port}"
            return ProcessSpec("kafka", argv, env, ready=self._kafka_answers, restart="on_failure", stop_timeout=10.0)

        self.supervisor.start_on_free_ports(2, make)
        with self._step("topics", "Kafka's topics"):
            self.bus().ensure_topics()
            self._send_spec()

    def _kafka_answers(self) -> bool:
        try:
            broker.wait_ready(self.addresses["kafka"], timeout=2.0)
        except Unavailable:
            return False
        return True

    def _start_gateway(self) -> None:
        def make(given: list[int]) -> ProcessSpec:
            process = self._gateway.place(given[0], given[1])
            self.addresses |= {"gateway": process.url, "gateway_admin": f"http://127.0.0.1:{given[1]}"}
            return ProcessSpec("gateway", process.argv, process.env, ready=process.ready_url, restart="on_failure")

        given = self.supervisor.start_on_free_ports(2, make)
        target = Target(f"127.0.0.1:{given[1]}", "gateway", "gateway", self.fleet.fleet, path="/stats/prometheus")
        self._targets.set("gateway", [target])

    def _start_gpus(self) -> None:
        def make(given: list[int]) -> ProcessSpec:
            argv = ["replay-gpu", "--port", str(given[0]), "--gpus", str(GPU_SLOTS), "--speed", str(GPU_SAMPLES_PER_SECOND)]
            argv += ["--assignment", str(self._gpus_file), "--faults", str(self.folder / "gpu-faults.json")]
            return self._trimtab("replay-gpu", argv, ready=f"http://127.0.0.1:{given[0]}/metrics", restart="on_failure")

        (port,) = self.supervisor.start_on_free_ports(1, make)
        self.addresses["gpu"] = f"http://127.0.0.1:{port}/metrics"
        self._targets.set("gpu", [Target(f"127.0.0.1:{port}", "gpu-node", "gpu", self.fleet.fleet)])

    def _start_replicas(self) -> None:
        version, count = self.fleet.version, max(1, self.fleet.min_replicas)
        self._publish_version(version, None)
        pool = PoolPlan(version=version, role="stable", replicas=count, weight=100)
        self._host.apply(FleetPlan(fleet=self.fleet.fleet, decision="first", pools=[pool]))
        with self._step("replicas", f"{count} first replicas"):
            while len(self.serving(version)) < count:
                for each in (replica for pool in self.observe().pools for replica in pool.replicas):
                    if each.phase == "failed":
                        raise TrimtabError(f"Replica {each.name} did not come up: {each.error}")
                if self._stopping.is_set():
                    return
                if self._host.error is not None:
                    raise TrimtabError(f"The first replicas cannot be started: {self._host.error}")
                time.sleep(0.05)

    def _start_collector(self) -> None:
        self._start_reader("collect", ["collect", "--targets", str(self._targets.path)], "--metrics-port", "/metrics")

    def _start_autoscaler(self) -> None:
        argv = ["autoscale", "--fleet", self.fleet.fleet, "--host", self.addresses["host"]]
        argv += ["--state", str(self.folder / "autoscaler-state.json")]
        self._start_reader("autoscale", argv, "--metrics-port", "/metrics")

    def _start_detectors(self) -> None:
        with self._step("flink-jars", "Flink's Kafka connector"):
            jars = java.flink_jars()
        argv = ["detect", "run", "--checkpoints", str(self.folder / "checkpoints"), "--jars", str(jars)]
        argv += ["--kafka", self.addresses["kafka"], "--log-dir", str(self.folder / "logs" / "flink")]
        self._start_reader("detect", argv, "--health-port", "/", stop_timeout=10.0)

    def _start_reader(self, name: str, argv: list[str], port_option: str, path: str, stop_timeout: float = 5.0) -> None:
        """Start a part that reads Kafka and answers 200 on a port of its own when it works."""

        def make(given: list[int]) -> ProcessSpec:
            url = f"http://127.0.0.1:{given[0]}{path}"
            self.addresses[name] = url
            full = [*argv, port_option, str(given[0]), "--spans", str(self.folder / "spans" / f"{name}.jsonl")]
            return self._trimtab(name, full, ready=url, restart="on_failure", stop_timeout=stop_timeout, after=("kafka",))

        (self.folder / "spans").mkdir(exist_ok=True)
        self.supervisor.start_on_free_ports(1, make)

    def _replica(self, name: str, version: int, given: Ports) -> ServingProcess:
        return triton.replica_process(
            self._store,
            self.fleet.model,
            version,
            self._replicas / name,
            http_port=given.http,
            metrics_port=given.metrics,
            fault_file=fault_file(self._replicas, name),
        )

    def _publish_version(self, version: int, fault: Fault | None) -> None:
        with self._step("model", f"version {version} of the model"):
            exported = export.ensure_exported(export.adapter_for(version), java.cache_folder() / "models")
            repository.publish(self._store, self.fleet.model, version, exported, fault)

    def _send_spec(self) -> None:
        producer = self.bus().producer()
        try:
            producer.send(FLEETS, self.fleet)
            producer.flush()
        finally:
            producer.close()

    def _bus_settings(self) -> BusSettings:
        return settings.load(BusSettings).model_copy(update={"bootstrap": self.addresses["kafka"]})

    def _trimtab(self, name: str, arguments: Sequence[str], **how: Any) -> ProcessSpec:
        """A `trimtab` command as a process that uses this stack's Kafka."""
        env = os.environ | {"TRIMTAB_KAFKA_BOOTSTRAP": self.addresses.get("kafka", ""), "PYTHONUNBUFFERED": "1"}
        if "kafka" not in self.addresses:
            del env["TRIMTAB_KAFKA_BOOTSTRAP"]
        return ProcessSpec(name, [sys.executable, "-m", "trimtab", *arguments], env, **how)

    @contextmanager
    def _step(self, name: str, words: str) -> Iterator[None]:
        """Tell of a step that is no process: `started` and `ready` with how long it took."""
        began = time.monotonic()
        self._on_event(Event(time.time(), name, "started", words))
        yield
        self._on_event(Event(time.time(), name, "ready", f"{words} after {time.monotonic() - began:.1f} s"))

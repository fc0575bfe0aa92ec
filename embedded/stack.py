"""The whole stack of one fleet on this machine: every part a child process, everything on free loopback ports.

    with Stack(Path("/tmp/run"), spec, seed=7, on_event=print) as stack:
        stack.start_traffic(plan_file, start_at)
        stack.release(2)
        stack.inject("hang", stack.serving(1)[0])

Nothing of it outlives the process that holds the stack.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from types import TracebackType

import msgspec
from filelock import BaseFileLock

from embedded import runs
from embedded.faults import SLOW_SECONDS, Faults, ReplicaFaultKind, fault_file
from embedded.gateway_files import GatewayFiles
from embedded.host.fleet import FleetHost, Ports, ServingProcess
from embedded.host.server import HostServer
from embedded.host.targets import TargetsFile
from embedded.memory import check_memory
from embedded.parts import Parts
from embedded.supervisor import Event, Process, Row, Supervisor
from serving_stack import export, repository, triton
from serving_stack.fault import Fault
from serving_stack.gateway.settings import GatewaySettings
from trimtab.bus import Bus
from trimtab.errors import TrimtabError
from trimtab.messages import FLEETS, FleetPlan, FleetSpec, FleetState, PoolPlan
from trimtab.settings import load


class Stack:
    """One running stack. `start` brings everything up, `stop` takes everything down; `with` does both.

    `on_event` hears of steps and processes as they start, get ready or end; threads call it, and it must be quick.
    """

    opening = "starting Kafka, Flink, Triton, Envoy and the autoscaler"

    def __init__(self, folder: Path, fleet: FleetSpec, seed: int, on_event: Callable[[Event], None] = lambda event: None) -> None:
        self.folder = folder.absolute()
        self.fleet = fleet
        self.seed = seed
        self._on_event = on_event
        self.folder.mkdir(parents=True, exist_ok=True)
        self._store = self.folder / "store"
        self._replicas = self.folder / "replicas"
        self._registered: Path | None = None
        self._owned: BaseFileLock | None = None
        self._supervisor: Supervisor | None = None
        self._stopping = threading.Event()
        self._exported: dict[int, Path] = {}
        self._export_lock = threading.Lock()
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

        Raises `Missing` (memory, a folder in use, jars, model, Triton, Envoy) or `ProcessFailed` with the last lines of the
        log; call `stop` then.
        """
        check_memory()
        self._owned = runs.own(self.folder)
        started = time.time()
        self.fleet = msgspec.structs.replace(self.fleet, time=started)
        supervisor = Supervisor(self.folder / "logs", self._on_event)
        self._targets = TargetsFile(self.folder / "targets.json")
        parts = self._parts = Parts(self.folder, self.fleet.fleet, self.fleet.model, supervisor, self._targets, self._on_event)
        files = GatewayFiles(self.folder / "gateway", self.fleet.fleet, self.fleet.model, load(GatewaySettings))
        self._host = FleetHost(
            self.fleet.fleet,
            supervisor,
            self._replica,
            files.publish,
            self._targets,
            parts.gpus_file,
            stop_timeout=triton.EXIT_TIMEOUT_SECONDS + 1,
        )
        self.faults = Faults(self._host, self._targets, self._replicas, parts.gpu_faults_file)
        self._server = HostServer({self.fleet.fleet: self._host})
        parts.addresses["host"] = self._server.url
        self._supervisor = supervisor
        with ThreadPoolExecutor(8, thread_name_prefix="start") as pool:
            kafka = pool.submit(parts.kafka)
            replicas = pool.submit(self._start_replicas)
            steps = [pool.submit(parts.gateway, files), pool.submit(parts.gpus)]
            steps += [
                pool.submit(self._once, kafka, step)
                for step in (self._send_spec, parts.detectors, parts.collector, parts.notifier)
            ]
            steps += [pool.submit(self._once, kafka, self._once, replicas, parts.autoscaler)]
            steps += [pool.submit(self._once, replicas, self._export_rest)]
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
        return self._parts.bus()

    @property
    def addresses(self) -> dict[str, str]:
        """URL or host:port by name: kafka, gateway, gateway_admin, host, gpu, traffic, collect, autoscale, detect."""
        return self._parts.addresses

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
        """See `Parts.traffic`."""
        return self._parts.traffic(plan, start_at)

    def start_training(self, ticks: int = 45) -> Process:
        """See `Parts.training`."""
        return self._parts.training(ticks)

    def publish(self, version: int, fault: Fault | None = None) -> None:
        """Put a version into the repository without releasing it; `fault` makes each of its replicas have that fault."""
        with self._parts.step("model", f"version {version} of the model"):
            adapter = export.adapter_for(version)
            with self._export_lock:
                if adapter not in self._exported:
                    self._exported[adapter] = self._parts.exported(adapter)
            repository.publish(self._store, self.fleet.model, version, self._exported[adapter], fault)

    def release(self, version: int, fault: Fault | None = None) -> None:
        """Publish a version into the repository and release it; `fault` makes each of its replicas have that fault."""
        self.publish(version, fault)
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
            self._disown()
            return
        self._stopping.set()
        self.faults.lift()
        self._server.close()
        self._host.close()
        supervisor.stop()
        self._targets.close()
        self._peak = supervisor.peak_memory_bytes
        self._disown()

    def _disown(self) -> None:
        if self._owned is not None:
            self._owned.release()
            self._owned = None

    def _export_rest(self) -> None:
        """Have all adapters exported before the clock runs: later a release costs no time."""
        for adapter in export.shipped():
            with self._export_lock:
                if adapter not in self._exported:
                    self._exported[adapter] = self._parts.exported(adapter)

    def _start_replicas(self) -> None:
        version, count = self.fleet.version, max(1, self.fleet.min_replicas)
        self.publish(version)
        pool = PoolPlan(version=version, role="stable", replicas=count, weight=100)
        self._host.apply(FleetPlan(fleet=self.fleet.fleet, decision="first", pools=[pool]))
        with self._parts.step("replicas", f"{count} first replicas"):
            while len(self.serving(version)) < count:
                for each in (replica for pool in self.observe().pools for replica in pool.replicas):
                    if each.phase == "failed":
                        raise TrimtabError(f"Replica {each.name} did not come up: {each.error}")
                if self._stopping.is_set():
                    return
                if self._host.error is not None:
                    raise TrimtabError(f"The first replicas cannot be started: {self._host.error}")
                time.sleep(0.05)

    def _replica(self, name: str, version: int, given: Ports) -> ServingProcess:
        return triton.replica_process(
            self._store,
            self.fleet.model,
            version,
            self._replicas / name,
            http_port=given.http,
            metrics_port=given.metrics,
            grpc_port=given.grpc,
            fault_file=fault_file(self._replicas, name),
        )

    def _send_spec(self) -> None:
        producer = self.bus().producer()
        try:
            producer.send(FLEETS, self.fleet)
            producer.flush()
        finally:
            producer.close()

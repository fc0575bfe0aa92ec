"""A fleet host as a process of its own: Triton replicas as its children, told what to do over HTTP.

It stands where no Kubernetes is: in a container beside Envoy, collector and autoscaler, which see its targets file and the
gateway's files in shared folders. Everything that it is told it remembers, and begins with when it starts again.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from embedded.faults import fault_file
from embedded.gateway_files import GatewayFiles
from embedded.host.fleet import FleetHost, Ports, ServingProcess
from embedded.host.server import HostServer
from embedded.host.targets import Target, TargetsFile, write_atomically
from embedded.supervisor import Event, Supervisor
from serving_stack import repository, triton
from serving_stack.adapters_content import lend_adapters
from serving_stack.fault import Fault
from serving_stack.gateway import place
from serving_stack.gateway.settings import GatewaySettings
from trimtab.bus import Bus
from trimtab.errors import Missing, SettingsError, Unavailable
from trimtab.messages import FLEETS, FleetPlan, FleetSpec, PoolPlan
from trimtab.settings import load

KAFKA_PAUSE_SECONDS = 2.0
QUIET_SECONDS = 3.0
"""A topic that gives nothing for so long was read to its end."""


@dataclass(frozen=True)
class Alone:
    """How a host runs by itself. `address` is where others reach the replicas; `listen` is what the host itself listens on."""

    spec: FleetSpec
    store: Path
    work: Path
    """Folder for the replicas, their logs and the last plan; belongs to this host alone."""
    gateway: Path
    targets: Path
    address: str
    listen: str
    port: int
    also: Path | None = None
    drills: dict[int, Fault] = field(default_factory=dict)
    """Versions to make from the newest one in `store`, with a fault: something bad to release while trying Trimtab."""


class RememberingHost(FleetHost):
    """A fleet host that keeps its last plan in a file."""

    plan_file: Path

    def apply(self, plan: FleetPlan) -> None:
        """Accept and remember a plan. Raises `InvalidPlan`."""
        super().apply(plan)
        write_atomically(self.plan_file, msgspec.json.encode(plan).decode())


def run(how: Alone, bus: Bus, stop: threading.Event) -> None:
    """Serve until `stop` is set; then all replicas are gone. Raises `Missing`, `SettingsError`."""
    how.work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(how.work / "replicas", ignore_errors=True)
    store = _store(how)
    supervisor = Supervisor(how.work / "logs", _say)
    targets = TargetsFile(how.targets)
    targets.set("also", other_targets(how.also))
    files = GatewayFiles(how.gateway, how.spec.fleet, how.spec.model, load(GatewaySettings), how.address, shared=True)
    files.place(place.LISTEN_PORT, place.ADMIN_PORT)

    def replica(name: str, version: int, given: Ports) -> ServingProcess:
        return triton.replica_process(
            store,
            how.spec.model,
            version,
            how.work / "replicas" / name,
            http_port=given.http,
            metrics_port=given.metrics,
            grpc_port=given.grpc,
            fault_file=fault_file(how.work / "replicas", name),
            host=how.listen,
        )

    host = RememberingHost(
        how.spec.fleet,
        supervisor,
        replica,
        files.publish,
        targets,
        how.targets.with_name("gpus.json"),
        stop_timeout=triton.EXIT_TIMEOUT_SECONDS + 1,
        address=how.address,
    )
    host.plan_file = how.work / "plan.json"
    host.apply(_first_plan(how, host.plan_file))
    server = HostServer({how.spec.fleet: host}, how.port, how.listen)
    try:
        _announce(bus, how.spec, stop)
        stop.wait()
    finally:
        server.close()
        host.close()
        supervisor.stop()
        targets.close()


def other_targets(file: Path | None) -> list[Target]:
    """What else is scraped, from a `file_sd` file in JSON. Raises `SettingsError`."""
    if file is None:
        return []
    try:
        return [
            Target(
                address,
                group["labels"]["target"],
                group["labels"]["role"],
                group["labels"]["fleet"],
                path=group["labels"].get("__metrics_path__", "/metrics"),
            )
            for group in json.loads(file.read_text())
            for address in group["targets"]
        ]
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise SettingsError(f"{file} is not a list of targets with the labels target, role and fleet: {error!r}") from error


def _store(how: Alone) -> Path:
    """The shipped versions, and the drills made from the newest of them, in a store of the host's own."""
    shipped = repository.versions(how.store, how.spec.model)
    if not shipped:
        raise Missing(f"there is no version of model {how.spec.model} in {how.store}")
    store = how.work / "store"
    shutil.rmtree(store, ignore_errors=True)
    (store / how.spec.model).mkdir(parents=True)
    for version in shipped:
        (store / how.spec.model / str(version)).symlink_to(how.store.absolute() / how.spec.model / str(version))
    for version, fault in how.drills.items():
        if version in shipped:
            raise SettingsError(f"version {version} is a shipped one: give the drill another number")
        repository.publish(store, how.spec.model, version, how.store / how.spec.model / str(max(shipped)), fault)
    lend_adapters(how.store, how.spec.model, store)
    return store


def _first_plan(how: Alone, remembered: Path) -> FleetPlan:
    """What ran before, or the least that the spec asks for."""
    if remembered.is_file():
        try:
            return msgspec.json.decode(remembered.read_bytes(), type=FleetPlan)
        except msgspec.DecodeError as error:
            print(f"{remembered} is damaged ({error}): starting as if for the first time", flush=True)
    spec = how.spec
    pool = PoolPlan(version=spec.version, role="stable", replicas=max(1, spec.min_replicas), weight=100)
    return FleetPlan(fleet=spec.fleet, decision="first", pools=[pool])


def _announce(bus: Bus, spec: FleetSpec, stop: threading.Event) -> None:
    """Say on the topic which fleet this is, unless it says so already; waits for a Kafka that is away."""
    while not stop.is_set():
        try:
            bus.ensure_topics()
            if _is_known(bus, spec.fleet):
                return
            producer = bus.producer()
            try:
                producer.send(FLEETS, msgspec.structs.replace(spec, time=time.time()))
                producer.flush()
            finally:
                producer.close()
            return
        except Unavailable as error:
            print(error, flush=True)
            stop.wait(KAFKA_PAUSE_SECONDS)


def _is_known(bus: Bus, fleet: str) -> bool:
    consumer = bus.consumer([FLEETS], group=None, start="earliest")
    try:
        quiet_at = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < quiet_at:
            for record in consumer.poll(0.5):
                quiet_at = time.monotonic() + QUIET_SECONDS
                if isinstance(record.message, FleetSpec) and record.message.fleet == fleet:
                    return True
        return False
    finally:
        consumer.close()


def _say(event: Event) -> None:
    first = event.detail.splitlines()[0] if event.detail else ""
    print(f"{event.process} {event.kind} {first}".rstrip(), flush=True)

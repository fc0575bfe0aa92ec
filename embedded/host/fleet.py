"""Runs one fleet: does what `reconcile` says, on real processes, and tells gateway, scraper and GPU replay of every change."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from embedded import ports
from embedded.host.drains import waiting_requests
from embedded.host.reconcile import Action, Drain, GatewayPool, Quarantine, Start, Stop, check_plan, in_traffic, reconcile, routed
from embedded.host.state import HostState, Replica, fleet_state
from embedded.host.targets import Target, TargetsFile, write_atomically
from embedded.supervisor import Event, Process, ProcessSpec, Supervisor
from trimtab.messages import FleetPlan, FleetState

STEP_SECONDS = 0.1
"""How often drains and quarantines are looked at; plans and process events are handled at once."""
LOST_PORT_ATTEMPTS = 3
ERROR_LINES = 4


class ServingProcess(Protocol):
    """How to run one replica, e.g. `serving_stack.triton.ReplicaProcess`."""

    @property
    def argv(self) -> list[str]: ...
    @property
    def env(self) -> Mapping[str, str]: ...
    @property
    def ready_url(self) -> str: ...
    @property
    def metrics_url(self) -> str: ...
    @property
    def shm_prefix(self) -> str:
        """How the names of its shared memory begin."""


@dataclass(frozen=True)
class Ports:
    """The loopback ports of one replica."""

    http: int
    grpc: int
    metrics: int


MakeReplica = Callable[[str, int, Ports], ServingProcess]
"""(name, version, ports) -> how to run it. Raises `TrimtabError` when there is no such version."""
Publish = Callable[[list[GatewayPool], Mapping[str, Ports]], None]
"""(pools, ports by replica) -> writes them to the gateway."""


@dataclass
class _Running:
    process: Process
    serving: ServingProcess
    ports: Ports
    attempts: int = 1


class FleetHost:
    """One fleet on this machine. `observe` and `apply` are the actuator contract; both may be called from any thread."""

    def __init__(
        self,
        fleet: str,
        supervisor: Supervisor,
        make: MakeReplica,
        publish: Publish,
        targets: TargetsFile,
        gpus_file: Path,
        *,
        most_replicas: int = 16,
        ready_timeout: float = 60.0,
        stop_timeout: float = 10.0,
        address: str = "127.0.0.1",
    ) -> None:
        self._supervisor, self._make, self._publish, self._targets, self._gpus_file = (
            supervisor,
            make,
            publish,
            targets,
            gpus_file,
        )
        self._most_replicas, self._ready_timeout, self._stop_timeout = most_replicas, ready_timeout, stop_timeout
        self._address = address
        """Where scrapers on other machines reach the replicas."""
        self._state = HostState(fleet)
        self._plan: FleetPlan | None = None
        self._running: dict[str, _Running] = {}
        self._inbox: queue.SimpleQueue[tuple[Event, int] | None] = queue.SimpleQueue()
        self._published: object = None
        self._told: dict[str, object] = {}
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self.error: str | None = None
        """Why the last step could not be finished (it is tried again), else None."""
        write_atomically(gpus_file, "{}")
        self._threads = [
            threading.Thread(target=target, name=f"host-{fleet}", daemon=True) for target in (self._run, self._meter)
        ]
        for thread in self._threads:
            thread.start()

    def observe(self) -> FleetState:
        """What runs now."""
        with self._lock:
            return fleet_state(self._state, self._plan, time.time())

    def apply(self, plan: FleetPlan) -> None:
        """Accept a plan; it is worked on at once, and until the next one. Raises `InvalidPlan`."""
        check_plan(plan, self._state.fleet, self._most_replicas)
        with self._lock:
            self._plan = plan
            roles = {pool.version: pool.role for pool in plan.pools}
            self._state = replace(self._state, roles={**self._state.roles, **roles})
        self._inbox.put(None)

    def process(self, name: str) -> Process:
        """The process of a replica. Raises `KeyError` when there is none of this name."""
        with self._lock:
            return self._running[name].process

    def replica(self, name: str) -> Replica:
        """What the host knows of a replica. Raises `KeyError`."""
        with self._lock:
            return self._state.replicas[name]

    def close(self) -> None:
        """Stop working on the plan; the processes end with the supervisor."""
        self._closing.set()
        self._inbox.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        happened: list[tuple[Event, int]] = []
        while not self._closing.is_set():
            with contextlib.suppress(queue.Empty):
                if (event := self._inbox.get(timeout=STEP_SECONDS)) is not None:
                    happened.append(event)
                while (event := self._inbox.get_nowait()) is not None:
                    happened.append(event)
            with self._lock:
                try:
                    while happened:
                        self._take_in(*happened.pop(0))
                    self._step()
                    self.error = None
                except Exception as error:  # whatever it was, a fleet is not left alone because of it: the next step tries again
                    self.error = f"{type(error).__name__}: {error}"

    def _step(self) -> None:
        if self._plan is None:
            return
        while True:
            actions = reconcile(self._state, self._plan, time.time())
            for action in actions:
                self._do(action)
            self._route(self._plan)
            if not actions:
                break
        self._tell()

    def _take_in(self, event: Event, attempt: int) -> None:
        replica, running = self._state.replicas.get(event.process), self._running.get(event.process)
        if replica is None or running is None or attempt != running.attempts:
            return
        if event.kind == "ready":
            self._state = self._state.with_replica(replica.after("ready", event.time))
        elif event.kind in ("exited", "failed") and replica.alive:
            given = (running.ports.http, running.ports.grpc, running.ports.metrics)
            may_retry = event.kind == "exited" and replica.phase == "starting" and attempt < LOST_PORT_ATTEMPTS
            if may_retry and any(map(ports.taken, given)):
                self._launch(replica, attempt + 1)
                return
            error = f"{event.detail}.{running.process.last_lines(ERROR_LINES)}"
            self._state = self._state.with_replica(replica.after("ended", event.time, error))

    def _do(self, action: Action) -> None:
        now = time.time()
        match action:
            case Start(version):
                self._state, replica = self._state.with_new(version, now)
                self._launch(replica, 1)
            case Drain(name):
                self._state = self._state.with_replica(self._state.replicas[name].after("drain", now))
            case Quarantine(name):
                self._state = self._state.with_replica(self._state.replicas[name].after("quarantine", now))
            case Stop(name):
                self._state = self._state.without(name)
                running = self._running.pop(name, None)
                self._tell()  # out of the scrape targets before it stops answering
                if running is not None:
                    running.process.ask_to_stop(0.2 if running.process.state == "starting" else None)

    def _launch(self, replica: Replica, attempt: int) -> None:
        """Start the process of a replica; one that cannot even be started has failed, with the reason."""
        given = Ports(*ports.free_ports(3))
        try:
            serving = self._make(replica.name, replica.version, given)
            spec = ProcessSpec(
                replica.name,
                serving.argv,
                serving.env,
                ready=serving.ready_url,
                ready_timeout=self._ready_timeout,
                stop_timeout=self._stop_timeout,
                leftovers=(f"/dev/shm/{serving.shm_prefix}",),  # noqa: S108 - where shared memory is
            )
            process = self._supervisor.spawn(spec, lambda event: self._inbox.put((event, attempt)))
        except Exception as error:  # a version that is not there, a full disk: the replica's failure, not the host's
            self._state = self._state.with_replica(replica.after("ended", time.time(), str(error)))
            return
        self._running[replica.name] = _Running(process, serving, given, attempt)

    def _route(self, plan: FleetPlan) -> None:
        """Write the gateway's endpoints and weights when they changed, then note who is in traffic."""
        pools = routed(self._state, plan)
        if self._published != pools:
            named = [name for pool in pools for name in pool.listed]
            self._publish(pools, {name: self._running[name].ports for name in named})
            self._published = pools
        now = time.time()
        serving = in_traffic(pools)
        for replica in list(self._state.replicas.values()):
            inside = replica.name in serving
            if inside != replica.in_traffic or (not inside and replica.out_since is None):
                self._state = self._state.with_replica(replace(replica, in_traffic=inside, out_since=None if inside else now))

    def _tell(self) -> None:
        """Update scrape targets and GPU slots; writes only what changed."""
        replicas = list(self._state.replicas.values())
        targets = [self._target(each) for each in replicas if each.served and each.name in self._running]
        if self._told.get("targets") != targets:
            self._targets.set("replicas", targets)
            self._told["targets"] = targets
        gpus = {str(each.gpu): each.name for each in replicas if each.gpu is not None}
        if self._told.get("gpus") != gpus:
            write_atomically(self._gpus_file, json.dumps(gpus))
            self._told["gpus"] = gpus

    def _target(self, replica: Replica) -> Target:
        url = urlsplit(self._running[replica.name].serving.metrics_url)
        role = self._state.roles.get(replica.version)
        return Target(
            f"{self._address}:{url.port}",
            replica.name,
            "triton",
            self._state.fleet,
            role,
            replica.version,
            url.path or "/metrics",
        )

    def _meter(self) -> None:
        """Ask draining replicas how many requests they still have, outside of the lock: a hung one answers late or never."""
        while not self._closing.wait(STEP_SECONDS):
            with self._lock:
                draining = [
                    (each.name, self._running[each.name].serving.metrics_url)
                    for each in self._state.replicas.values()
                    if each.phase == "draining" and not each.in_traffic and each.name in self._running
                ]
            for name, url in draining:
                waiting = waiting_requests(url)
                with self._lock:
                    if name in self._state.replicas:
                        self._state = self._state.with_replica(replace(self._state.replicas[name], in_flight=waiting))

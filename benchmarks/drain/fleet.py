"""A fleet on this machine: a fleet host with real Tritons, and a real gateway in front of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from embedded.host.fleet import FleetHost, Ports, ServingProcess
from embedded.host.reconcile import GatewayPool
from embedded.host.targets import TargetsFile
from embedded.supervisor import Process, ProcessSpec, Supervisor
from serving_stack import gateway, triton
from serving_stack.models_add import add_shipped
from trimtab.errors import Unavailable
from trimtab.messages import FleetPlan, PoolPlan, PoolRole, ReplicaState

MODEL = "intent"
VERSIONS = (1, 2)

Pool = tuple[int, PoolRole, int, int]
"""Version, role, replicas, weight."""


class Fleet:
    """What `fleet` gives. All methods return when what they ask for is so, and raise Unavailable when it never is."""

    def __init__(self, folder: Path, store: Path, patience: gateway.Patience, admission: gateway.Admission | None) -> None:
        self._folder, self._store, self._patience, self._admission = folder, store, patience, admission
        self.supervisor = Supervisor(folder / "logs")
        self._ports: tuple[int, int] | None = None
        self._pools: tuple[gateway.GatewayPool, ...] = ()
        self._targets = TargetsFile(folder / "targets.json")
        gpus = folder / "gpus.json"
        stop = triton.EXIT_TIMEOUT_SECONDS + 1
        self._host = FleetHost(
            MODEL, self.supervisor, self._replica, self._publish, self._targets, gpus, ready_timeout=120, stop_timeout=stop
        )
        self._quarantined: list[str] = []
        self._plan: tuple[Pool, ...] = ()

    def start(self, *pools: Pool) -> int:
        """The first replicas, then the gateway; its port."""
        self.change(*pools)
        self.supervisor.start_on_free_ports(2, self._gateway)
        return self.port

    @property
    def port(self) -> int:
        """Where the gateway listens."""
        assert self._ports is not None
        return self._ports[0]

    @property
    def routed(self) -> tuple[gateway.GatewayPool, ...]:
        """The pools that the gateway has now."""
        return self._pools

    def route(self, *pools: gateway.GatewayPool) -> None:
        """Gives the gateway other pools, until the fleet changes."""
        self._pools = pools
        self._write()

    def change(self, *pools: Pool) -> None:
        """Makes the fleet so: exactly these replicas, all in traffic, and nothing else is left."""
        self._plan = pools
        plan = FleetPlan(
            fleet=MODEL,
            decision="benchmark",
            pools=[PoolPlan(version=v, role=role, replicas=n, weight=weight) for v, role, n, weight in pools],
            quarantined=self._quarantined,
        )
        self._host.apply(plan)
        self._until(lambda: self._is(pools), 180, f"the fleet never became {pools}")

    def kill(self) -> None:
        """SIGKILL to the oldest replica in traffic, and then another in its place."""
        victim = next(each.name for each in self._replicas() if each.in_traffic)
        pid = self.supervisor.process(victim).pid
        if pid is None:
            raise Unavailable(f"{victim} has no process to kill")
        os.kill(pid, signal.SIGKILL)
        dead = ("failed", "quarantined")
        self._until(
            lambda: any(each.name == victim and each.phase in dead for each in self._replicas()), 30, f"{victim} lives on"
        )
        self._quarantined = [victim]
        self.change(*self._plan)

    def traffic(self, name: str, rate: float) -> Process:
        """A traffic generator that sends until it is stopped, and then writes `<name>.json` and `<name>.jsonl`."""
        argv = [sys.executable, "-m", "trimtab", "traffic", "--url", f"http://127.0.0.1:{self.port}", "--model", MODEL]
        argv += ["--rate", str(rate), "--arrivals", "constant", "--summary", str(self._folder / f"{name}.json")]
        argv += ["--requests", str(self._folder / f"{name}.jsonl")]
        return self.supervisor.spawn(ProcessSpec(name, argv, os.environ, stop_timeout=30.0))

    def close(self) -> None:
        """Nothing is left."""
        self._host.close()
        self.supervisor.stop()
        self._targets.close()

    def _replicas(self) -> list[ReplicaState]:
        return [each for pool in self._host.observe().pools for each in pool.replicas]

    def _is(self, pools: tuple[Pool, ...]) -> bool:
        there = [each for each in self._replicas() if each.name not in self._quarantined]
        weighted = {version for version, _role, _replicas, weight in pools if weight}
        return Counter(each.version for each in there) == Counter({v: n for v, _role, n, _weight in pools}) and all(
            each.phase == "ready" and (each.in_traffic or each.version not in weighted) for each in there
        )

    def _until(self, holds: Callable[[], bool], seconds: float, words: str) -> None:
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise Unavailable(f"{words}; logs are in {self._folder}")
            time.sleep(0.05)

    def _replica(self, name: str, version: int, given: Ports) -> ServingProcess:
        return triton.replica_process(
            self._store,
            MODEL,
            version,
            self._folder / "replicas" / name,
            http_port=given.http,
            metrics_port=given.metrics,
            grpc_port=given.grpc,
        )

    def _publish(self, pools: list[GatewayPool], given: Mapping[str, Ports]) -> None:
        self._pools = tuple(
            gateway.GatewayPool(
                version=pool.version,
                role=pool.role,
                weight=pool.weight,
                endpoints=tuple(("127.0.0.1", given[name].http) for name in pool.listed),
                grpc=tuple(("127.0.0.1", given[name].grpc) for name in pool.listed),
            )
            for pool in pools
        )
        if self._ports:
            self._write()

    def _gateway(self, given: list[int]) -> ProcessSpec:
        self._ports = given[0], given[1]
        self._write()
        process = gateway.gateway_process(self._folder / "gateway")
        return ProcessSpec("gateway", process.argv, process.env, ready=process.ready_url)

    def _write(self) -> None:
        assert self._ports is not None
        state = gateway.GatewayState(
            fleet=MODEL,
            model=MODEL,
            grpc=True,
            listen_port=self._ports[0],
            admin_port=self._ports[1],
            pools=self._pools,
            patience=self._patience,
            admission=self._admission,
        )
        gateway.write(self._folder / "gateway", gateway.render(state, self._folder / "gateway"))


def shipped(store: Path, say: Callable[[str], None]) -> None:
    """Both shipped versions of the model, in a repository of their own."""
    for version in VERSIONS:
        add_shipped(store, MODEL, version, version, tell=say)


@contextmanager
def fleet(
    folder: Path,
    store: Path,
    patience: gateway.Patience = gateway.Patience(),  # noqa: B008 (immutable)
    admission: gateway.Admission | None = gateway.Admission(),  # noqa: B008 (immutable)
) -> Iterator[Fleet]:
    """A fleet that is gone at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Fleet(folder, store, patience, admission)
    try:
        yield made
    finally:
        made.close()

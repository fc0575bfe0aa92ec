"""The stage of the benchmark `fleets`: a namespace, an operator as a process of its own, fleets, findings, and the way back."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

from benchmarks.fleets import meter
from benchmarks.fleets.pods import Kubelet, unscheduled
from embedded import broker, ports
from embedded.process import Process, ProcessSpec
from embedded.supervisor import Supervisor
from trimtab.bus import BusSettings, connect
from trimtab.errors import TrimtabError, Unavailable
from trimtab.kube import API_VERSION, Kube, KubeError, Object, fleet_name, fleet_path, is_ready, path_of
from trimtab.messages import FINDINGS, Finding

_OPERATOR = "trimtab.dev/operator"
_MAKE_EVERY_SECONDS = 0.1


class Stage:
    """Fleets ``f0``, ``f1``, ... in `namespace`, one operator that looks after them alone, and a broker."""

    def __init__(self, kube: Kube, namespace: str, supervisor: Supervisor, kubelet: Kubelet, bootstrap: str) -> None:
        self.kube, self.namespace, self.kubelet = kube, namespace, kubelet
        self._supervisor, self._bootstrap = supervisor, bootstrap
        self._producer = connect(BusSettings(bootstrap=bootstrap)).producer()
        self._operator: Process | None = None
        self._page = ""
        self.made = 0

    def operator(self) -> None:
        """Starts the operator, another one if there was one before; returns when its metrics page answers."""
        if self._operator is not None:
            self._operator.stop()
        (port,) = ports.free_ports(1)
        self._page = f"http://127.0.0.1:{port}/metrics"
        own = {
            "INSTANCE": self.namespace,
            "LEASE_NAMESPACE": self.namespace,
            "NAMESPACE": self.namespace,
        }
        argv = [sys.executable, "-m", "trimtab", "operator", "--bootstrap", self._bootstrap, "--metrics-port", str(port)]
        env = {**os.environ, **{f"TRIMTAB_OPERATOR_{key}": value for key, value in own.items()}}
        self._operator = self._supervisor.spawn(
            ProcessSpec("operator", argv, env=env, ready=self._page, restart="on_failure", restart_limit=20, stop_timeout=60)
        )
        self._operator.wait_ready()

    def look(self) -> meter.Look:
        """What the operator has cost so far, since it was started last; waits while it is started again."""
        assert self._operator is not None
        end = time.monotonic() + 90
        while True:
            try:
                return meter.look(self._operator.pid or 0, self._page)
            except (httpx.HTTPError, psutil.NoSuchProcess):
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    @property
    def restarts(self) -> int:
        """How often the operator ended by itself, as it does when the lead is lost, and was started again."""
        return self._operator.restarts if self._operator is not None else 0

    def make(self, count: int) -> None:
        """More fleets, until there are `count`; their traffic is sent from now on."""
        due = time.monotonic()
        for number in range(self.made, count):
            self._make(number)
            due += _MAKE_EVERY_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
        self.made = count
        with contextlib.suppress(KeyError):
            self._supervisor.process("traffic").stop()
        argv = [sys.executable, "-m", "benchmarks.fleets.traffic", self._bootstrap, fleet_name(self.namespace, "f"), str(count)]
        self._supervisor.spawn(ProcessSpec("traffic", argv))

    def followed(self, patience: float) -> bool:
        """Whether the operator follows all fleets, waiting for it."""
        return _wait(lambda: self.look().fleets >= self.made, patience)

    def ready(self, patience: float) -> int:
        """How many fleets have a ready replica and are Ready themselves, waiting for all of them."""
        _wait(lambda: len(self.kubelet.ready("triton")) >= self.made, patience)
        end = time.monotonic() + 60
        while (found := self._ready()) < self.made and time.monotonic() < end:
            time.sleep(1.0)
        return found

    def find(self, fleets: list[str], pause: float) -> list[float | None]:
        """A finding for one replica of each of these fleets; seconds until the watch told the pod's new label, or None."""
        pods, sent = self.kubelet.ready("triton"), {}
        for name in fleets:
            if name in pods:
                sent[pods[name]] = time.time()
                self._producer.send(FINDINGS, self._finding(name, pods[name]))
                self._producer.flush()
                time.sleep(pause)
        told = self.kubelet.quarantined
        _wait(lambda: sent.keys() <= told.keys(), 30)
        return [told[pod] - at if pod in told else None for pod, at in sent.items()]

    def _make(self, number: int) -> None:
        meta = {"name": f"f{number}", "namespace": self.namespace, "labels": {_OPERATOR: self.namespace}}
        spec = {"model": "intent", "capacityPerReplica": 40, "replicas": {"min": 1, "max": 4}, "gateway": {"replicas": 1}}
        thing = {"apiVersion": API_VERSION, "kind": "ModelFleet", "metadata": meta, "spec": spec}
        _patiently(lambda: self.kube.create(fleet_path(self.namespace), thing), done=409)

    def _ready(self) -> int:
        things = _patiently(lambda: self.kube.get(fleet_path(self.namespace)))["items"]
        return sum(is_ready(thing) for thing in things)

    def _finding(self, name: str, pod: str) -> Finding:
        now = time.time()
        return Finding(
            id=uuid.uuid4().hex, fleet=fleet_name(self.namespace, name), target=pod, kind="replica_fault", severity="critical",
            onset=now, time=now, state="firing", confidence=0.99, summary="a replica that hangs",
        )  # fmt: skip


@contextlib.contextmanager
def stage(kube: Kube, folder: Path) -> Iterator[Stage]:
    """Everything that is needed, and nothing of it left behind."""
    namespace = f"fb-{uuid.uuid4().hex[:6]}"
    kube.create(path_of("namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    found: Stage | None = None
    try:
        with unscheduled(kube, namespace), Supervisor(folder) as supervisor:
            kubelet = Kubelet(kube, namespace).start()
            try:
                found = Stage(kube, namespace, supervisor, kubelet, _broker(supervisor))
                found.operator()
                yield found
            finally:
                kubelet.stop()
    finally:
        _clear(kube, namespace)


def _broker(supervisor: Supervisor) -> str:
    port, controller = ports.free_ports(2)
    folder = supervisor.folder / "kafka"
    broker.format_storage(folder, port, controller)
    argv, env = broker.broker_process(folder, port, controller)
    supervisor.spawn(ProcessSpec("kafka", argv, env=env))
    bootstrap = f"127.0.0.1:{port}"
    broker.wait_ready(bootstrap, timeout=60)
    connect(BusSettings(bootstrap=bootstrap)).ensure_topics()
    return bootstrap


def _clear(kube: Kube, namespace: str) -> None:
    """No operator is there any more that would take its finalizers off."""
    gone = {"metadata": {"finalizers": None}}
    try:
        _patiently(lambda: kube.delete(path_of("namespaces", None, namespace)), done=404)
        while names := [each["metadata"]["name"] for each in _patiently(lambda: kube.get(fleet_path(namespace)))["items"]]:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda name: _patiently(lambda: kube.patch(fleet_path(namespace, name), gone), done=404), names))
            time.sleep(1.0)
    except TrimtabError as error:
        raise Unavailable(f"the namespace {namespace} is not cleared, please delete it: {error}") from error


def _patiently(request: Callable[[], Object], done: int | None = None, patience: float = 90.0) -> Object:
    """Asks again while the API server is away; a refusal with code `done` says that it was done before."""
    end = time.monotonic() + patience
    while True:
        try:
            return request()
        except KubeError as error:
            if error.status == done:
                return {}
            raise
        except Unavailable:
            if time.monotonic() > end:
                raise
            time.sleep(1.0)


def _wait(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.5)
    return False

"""A scenario on a Kubernetes cluster: the same plan, player and judge, with a ModelFleet in place of child processes.

Runs inside the cluster (`deploy/kubernetes/drill`): its traffic generator is scraped like any pod, and Kafka is
reached at the address that the system itself uses. Nothing of the operator is touched; everything is asked for as a user would.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from embedded.faults import SLOW_SECONDS, ReplicaFaultKind
from embedded.process import EventKind
from embedded.supervisor import Event, Process, ProcessSpec, Supervisor
from serving_stack.fault import Fault
from serving_stack.gateway.kubernetes import plan_of, replica_of, selector
from trimtab import settings
from trimtab.bus import Bus, BusSettings, connect
from trimtab.errors import Missing, Unavailable
from trimtab.kube import Kube, KubeError, Object, fleet_name, fleet_path, is_ready, path_of
from trimtab.messages import FleetSpec

METRICS_PORT = 9102
"""The port named `metrics` of the pod that plays the scenario."""
READY_SECONDS = 300.0
SHIPPED_VERSIONS = (1, 2)
"""What the serving image holds; any other version is one of these with a fault."""
_SYSTEM = "trimtab"
"""The namespace of the collectors, as the manifests have it."""
_COLLECTOR = "app.kubernetes.io/name=trimtab-collector"


class ClusterStack:
    """One ModelFleet, made for the scenario in `namespace` and deleted afterwards; its interface is that of `Stack`."""

    opening = "making the fleet on the cluster"
    peak_memory_bytes = 0
    """Unknown here: the pods' memory is the cluster's to say."""

    def __init__(self, folder: Path, fleet: FleetSpec, kube: Kube, namespace: str, on_event: Callable[[Event], None]) -> None:
        self.folder, self.name = folder.absolute(), fleet.fleet
        self.fleet = msgspec.structs.replace(fleet, fleet=fleet_name(namespace, fleet.fleet))
        self._kube, self._namespace, self._on_event = kube, namespace, on_event
        self._supervisor: Supervisor | None = None
        self._made = False

    def start(self) -> None:
        """Makes the fleet and returns when it is Ready. Raises `Missing` when the name is taken or it does not get Ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._supervisor = Supervisor(self.folder / "logs", self._on_event)
        try:
            self._kube.create(fleet_path(self._namespace), self._manifest())
        except KubeError as error:
            if error.status != 409:
                raise
            raise Missing(f"a ModelFleet {self.name} exists in {self._namespace} already; a scenario makes its own") from error
        self._made = True
        began = time.monotonic()
        self._say("fleet", "started", f"ModelFleet {self._namespace}/{self.name}")
        self._until(self._ready, READY_SECONDS, f"ModelFleet {self.name} is not Ready")
        self._say("fleet", "ready", f"after {time.monotonic() - began:.1f} s")

    def _manifest(self) -> Object:
        spec = self.fleet
        return {
            "apiVersion": "trimtab.dev/v1alpha1",
            "kind": "ModelFleet",
            "metadata": {"name": self.name, "namespace": self._namespace},
            "spec": {
                "model": spec.model,
                "version": spec.version,
                "replicas": {"min": spec.min_replicas, "max": spec.max_replicas},
                "capacityPerReplica": spec.capacity_per_replica,
                "slo": {"p99Milliseconds": round(spec.slo.p99_seconds * 1000), "errorPercent": spec.slo.error_ratio * 100},
                "resources": {"requests": {"cpu": "50m", "memory": "300Mi"}},
            },
        }

    def _ready(self) -> bool:
        return is_ready(self._fleet()) and len(self.serving()) >= self.fleet.min_replicas

    def _fleet(self) -> Object:
        return self._kube.get(fleet_path(self._namespace, self.name))

    def bus(self) -> Bus:
        """A new connection to the system's Kafka (`TRIMTAB_KAFKA_BOOTSTRAP`)."""
        return connect(settings.load(BusSettings))

    def start_traffic(self, plan: Path, start_at: float | None = None) -> Process:
        """Sends the plan's traffic through the fleet's Service from this pod; see `Parts.traffic`."""
        assert self._supervisor is not None
        argv = ["traffic", "--url", f"http://{self.name}.{self._namespace}", "--model", self.fleet.model, "--plan", str(plan)]
        argv += ["--metrics-port", str(METRICS_PORT), "--log", str(self.folder / "traffic.jsonl")]
        argv += ["--requests", str(self.folder / "requests.jsonl"), "--summary", str(self.folder / "traffic-summary.json")]
        argv += [] if start_at is None else ["--start-at", repr(start_at)]
        env = os.environ | {"TRIMTAB_METRICS_HOST": "0.0.0.0", "PYTHONUNBUFFERED": "1"}  # noqa: S104 - scraped from other pods
        spec = ProcessSpec(
            "traffic",
            [sys.executable, "-m", "trimtab", *argv],
            env,
            ready=f"http://127.0.0.1:{METRICS_PORT}/metrics",
            stop_timeout=25.0,
        )
        process = self._supervisor.spawn(spec)
        process.wait_ready()
        return process

    def start_training(self, ticks: int = 45) -> Process | None:
        """Nothing: on a cluster the learned detectors are trained by whoever runs it (`trimtab train`)."""
        return None

    def release(self, version: int, fault: Fault | None = None) -> None:
        """Asks for another version; a fault is handed to its pods as a drill."""
        if version not in SHIPPED_VERSIONS and fault is None:
            raise Missing(f"the serving image holds versions {SHIPPED_VERSIONS}, not {version}")
        drill = fault.model_dump_json(exclude_none=True) if fault is not None else None
        self._kube.patch(
            fleet_path(self._namespace, self.name),
            {"metadata": {"annotations": {f"trimtab.dev/drill-v{version}": drill}}, "spec": {"version": version}},
        )

    def serving(self, version: int | None = None) -> list[str]:
        """Names of the ready pods in traffic, of one version or (None) of the stable pool, oldest first."""
        if version is None:
            plan = plan_of(self._fleet())
            wanted = {pool.version for pool in plan.pools if pool.role == "stable"} if plan else set()
        else:
            wanted = {version}
        pods = self._kube.get(path_of("pods", self._namespace), labelSelector=selector(self.name))["items"]
        pods.sort(key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        return [found.name for found in map(replica_of, pods) if found is not None and found.version in wanted]

    def inject(self, kind: ReplicaFaultKind, replica: str, seconds: float = SLOW_SECONDS) -> None:
        """Makes a replica hang (SIGSTOP), slow, or crash (its pod is killed). Raises `Missing` for a GPU: there is none."""
        match kind:
            case "hang":
                self._exec(self._namespace, replica, "triton", ["trimtab-container", "hang"])
            case "slow":
                fault = Fault(kind="slow", seconds=seconds).model_dump_json(exclude_none=True)
                self._exec(self._namespace, replica, "triton", ["trimtab-container", "fault", fault])
            case "crash":
                self._kube.delete(path_of("pods", self._namespace, replica), gracePeriodSeconds=0)
            case "gpu":
                raise Missing("a GPU fault cannot be played on a cluster: no recorded GPU telemetry is replayed there")

    def telemetry_outage(self, which: str | Sequence[str], seconds: float) -> list[str]:
        """Stops every collector (SIGSTOP) for a time. Only `all`: on a cluster, single targets are not cut off."""
        if which != "all" and list(which) != ["all"]:
            raise Missing("on a cluster a telemetry outage is of all targets")
        found = self._kube.get(path_of("pods", _SYSTEM), labelSelector=_COLLECTOR)["items"]
        pods = [pod["metadata"]["name"] for pod in found]
        if not pods:
            raise Missing(f"no collector runs in {_SYSTEM}")
        self._signal_collectors(pods, "STOP")
        timer = threading.Timer(seconds, self._signal_collectors, (pods, "CONT"))
        timer.daemon = True
        timer.start()
        return pods

    def _signal_collectors(self, pods: Sequence[str], signal: str) -> None:
        everything = (
            "import os,signal,pathlib\n"
            "for p in pathlib.Path('/proc').glob('[0-9]*'):\n"
            "    if int(p.name) not in (1, os.getpid()): os.kill(int(p.name), signal.SIG" + signal + ")"
        )
        for pod in pods:
            self._exec(_SYSTEM, pod, None, ["python3", "-c", everything])

    def _exec(self, namespace: str, pod: str, container: str | None, command: list[str]) -> None:
        from kubernetes.client import CoreV1Api
        from kubernetes.client.exceptions import ApiException
        from kubernetes.stream import stream

        asked: dict[str, Any] = {"command": command, "stdout": True, "stderr": True, "_preload_content": False}
        if container is not None:
            asked["container"] = container
        try:
            # The stream changes the client that it is given, so each gets one of its own.
            run = stream(CoreV1Api(self._kube.new_client()).connect_get_namespaced_pod_exec, pod, namespace, **asked)
            run.run_forever(timeout=15)
            code = run.returncode  # first: reading what was said forgets it
            said = run.read_all()
        except ApiException as error:
            raise Unavailable(f"{' '.join(command[:2])} in pod {pod}: {error.reason}") from error
        if code != 0:
            raise Missing(f"{' '.join(command[:2])} in pod {pod} ended with {code}: {said.strip()[-300:]}")

    def stop(self) -> None:
        """Deletes the fleet and waits until it is gone; calling it again changes nothing."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
        if self._made:
            self._made = False
            self._kube.delete(fleet_path(self._namespace, self.name))
            self._until(self._gone, 120.0, f"ModelFleet {self.name} is not gone")

    def _gone(self) -> bool:
        try:
            self._fleet()
        except KubeError as error:
            return error.status == 404
        return False

    def _until(self, holds: Callable[[], bool], seconds: float, words: str) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if holds():
                    return
            except Unavailable as error:
                words = f"{words.split(';')[0]}; {error}"
            time.sleep(0.5)
        raise Missing(f"{words} after {seconds:.0f} s; `kubectl describe modelfleet {self.name} -n {self._namespace}` says why")

    def _say(self, name: str, kind: EventKind, words: str) -> None:
        self._on_event(Event(time.time(), name, kind, words))

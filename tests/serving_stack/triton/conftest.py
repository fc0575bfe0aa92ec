"""A real Triton that serves published versions, each started by `with started(store, version, folder) as replica`."""

import socket
import subprocess
import time
from contextlib import contextmanager

import httpx
import pytest

from serving_stack.export import adapter_for, default_cache, ensure_exported
from serving_stack.fault import Fault, set_fault
from serving_stack.repository import publish
from serving_stack.serving_settings import ServingSettings
from serving_stack.triton import replica_process


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    store = tmp_path_factory.mktemp("models") / "store"
    exported = ensure_exported(adapter_for(2), default_cache())
    publish(store, "intent", 2, exported)
    publish(store, "intent", 3, exported, Fault(kind="wrong", share=1.0))
    publish(store, "intent", 4, exported, Fault(kind="crashing", after_requests=3))
    return store


class Replica:
    def __init__(self, plan, process, fault_file, grpc_port):
        self.plan, self.process, self.fault_file, self.grpc_port = plan, process, fault_file, grpc_port

    def ask(self, *texts, **changes):
        tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts), 1], "data": list(texts)} | changes
        return httpx.post(self.plan.infer_url, json={"inputs": [tensor]}, timeout=20)

    def label(self, text):
        return self.ask(text).raise_for_status().json()["outputs"][0]["data"][0]

    def metric(self, name):
        for line in httpx.get(self.plan.metrics_url).text.splitlines():
            if line.startswith(name + "{") and '_feedback"' not in line:
                return float(line.split()[-1])
        raise AssertionError(f"no series {name}")

    def series(self):
        """Name and labels -> value, of the whole page."""
        lines = (line.rsplit(" ", 1) for line in httpx.get(self.plan.metrics_url).text.splitlines() if not line.startswith("#"))
        return {series: float(value) for series, value in lines}

    def grown(self, before, name, wanted):
        """Wait until a series has grown by `wanted` since `before`: the model brings most of its series four times a second."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = {s: v - before.get(s, 0.0) for s, v in self.series().items() if s.partition("{")[0] == name}
            if sum(found.values()) == wanted:
                return {series: value for series, value in found.items() if value}
            time.sleep(0.05)
        raise AssertionError(f"{name} grew by {found}")

    def failures(self):
        lines = httpx.get(self.plan.metrics_url).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("nv_inference_request_failure{"))

    def log(self):
        return (self.plan.folder / "log").read_text(errors="replace")

    def is_ready(self):
        try:
            return httpx.get(self.plan.ready_url, timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def until_ready(self):
        while self.process.poll() is None and not self.is_ready():
            time.sleep(0.05)
        assert self.process.poll() is None, self.log()

    def fault(self, fault):
        """Set a fault and wait until the replica must have looked."""
        set_fault(self.fault_file, fault)
        time.sleep(0.25)


@contextmanager
def _started(store, version, folder, **serving):
    http, metrics, grpc = free_ports(3)
    fault_file = folder.parent / f"{folder.name}.fault"
    plan = replica_process(
        store, "intent", version, folder, http_port=http, metrics_port=metrics, grpc_port=grpc,
        fault_file=fault_file, serving=ServingSettings(**serving),
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(plan.argv, env=plan.env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield Replica(plan, process, fault_file, grpc)
    finally:
        process.terminate()
        try:
            process.wait(plan.exit_timeout + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        plan.clean_up()


@pytest.fixture(scope="session", name="free_ports")
def _free_ports_function():
    return free_ports


@pytest.fixture(scope="session")
def started():
    return _started


@pytest.fixture(scope="session")
def replica(store, tmp_path_factory):
    with _started(store, 2, tmp_path_factory.mktemp("replicas") / "intent-v2-1", feedback=True) as replica:
        replica.until_ready()
        yield replica


@pytest.fixture(autouse=True)
def no_fault_left(request):
    yield
    if "replica" in request.fixturenames:
        request.getfixturevalue("replica").fault(None)

"""Triton's own clients, unchanged, through the gateway to real Tritons: over HTTP and over gRPC."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from serving_stack.gateway import GatewayPool, GatewayState, gateway_process, render, write
from serving_stack.repository import publish
from serving_stack.triton import ReplicaProcess, replica_process

pytestmark = pytest.mark.integration


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return found


class Serving:
    """A gateway, and replicas that are started and killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replicas: dict[str, tuple[ReplicaProcess, subprocess.Popen[bytes], int, int]] = {}
        listen, admin = free_ports(2)
        self.state = GatewayState(fleet="intent", listen_port=listen, admin_port=admin, model="intent", grpc=True)
        self.address = f"127.0.0.1:{listen}"

    def replica(self, name: str, version: int) -> None:
        http, grpc, metrics = free_ports(3)
        how = replica_process(
            self.folder / "store", "intent", version, self.folder / name, http_port=http, metrics_port=metrics, grpc_port=grpc
        )
        log = (self.folder / f"{name}.log").open("wb")
        process = subprocess.Popen(how.argv, env=how.env, stdout=log, stderr=log, start_new_session=True)
        self.replicas[name] = how, process, http, grpc
        wait(lambda: httpx.get(how.ready_url).status_code == 200, process, self.folder / f"{name}.log")

    def pool(self, version: int, role: Any, weight: int, *names: str) -> GatewayPool:
        ports = [self.replicas[name][2:] for name in names]
        return GatewayPool(
            version=version,
            role=role,
            weight=weight,
            endpoints=tuple(("127.0.0.1", http) for http, _ in ports),
            grpc=tuple(("127.0.0.1", grpc) for _, grpc in ports),
        )

    def give(self, *pools: GatewayPool) -> None:
        import msgspec

        self.state = msgspec.structs.replace(self.state, pools=pools)
        write(self.folder / "gateway", render(self.state, self.folder / "gateway"))

    def kill(self, name: str) -> None:
        how, process, *_ = self.replicas.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        how.clean_up()


def wait(holds: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except httpx.HTTPError:
            assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, write_tiny: Callable[..., None]) -> Iterator[Serving]:
    """Two replicas of version 1 and one of version 2, which has all the traffic's weight in neither: 50 to 50."""
    folder = tmp_path_factory.mktemp("serving")
    (folder / "tiny").mkdir()
    write_tiny(folder / "tiny")
    for version in (1, 2):
        publish(folder / "store", "intent", version, folder / "tiny")
    serving = Serving(folder)
    process = None
    try:
        for name, version in (("intent-v1-1", 1), ("intent-v1-2", 1), ("intent-v2-1", 2)):
            serving.replica(name, version)
        both(serving)
        what = gateway_process(folder / "gateway")
        with (folder / "envoy.log").open("wb") as log:
            process = subprocess.Popen(what.argv, stdout=log, stderr=log)
        wait(lambda: httpx.get(what.ready_url).status_code == 200, process, folder / "envoy.log")
        yield serving
    finally:
        for name in list(serving.replicas):
            serving.kill(name)
        if process:
            process.terminate()
            process.wait(10)


def both(serving: Serving) -> None:
    serving.give(
        serving.pool(1, "stable", 50, *(name for name in serving.replicas if "-v1-" in name)),
        serving.pool(2, "canary", 50, *(name for name in serving.replicas if "-v2-" in name)),
    )


def question(client: Any, text: str = "word1 word2") -> list[Any]:
    given = client.InferInput("text", [1, 1], "BYTES")
    given.set_data_from_numpy(np.array([[text.encode()]], dtype=np.object_))
    return [given]


@pytest.mark.parametrize("client", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_tritons_own_client_works_unchanged(serving: Serving, client: Any) -> None:
    with client.InferenceServerClient(serving.address) as asking:
        assert asking.is_server_live()
        assert asking.is_server_ready()
        assert asking.is_model_ready("intent")
        assert "intent" in str(asking.get_model_metadata("intent"))
        assert "binary_tensor_data" in str(asking.get_server_metadata())
        assert "max_batch_size" in str(asking.get_model_config("intent"))
        assert "intent" in str(asking.get_model_repository_index())
        seen = set()
        for _ in range(40):
            answer = asking.infer("intent", question(client))
            assert answer.as_numpy("label").shape == (1, 1)
            assert answer.as_numpy("confidence").dtype == np.float32
            response = answer.get_response()
            seen.add(str(response["model_version"] if isinstance(response, dict) else response.model_version))
        assert seen == {"1", "2"}
        for version in ("1", "2"):
            for _ in range(5):
                answer = asking.infer("intent", question(client), headers={"x-trimtab-pin-version": version}).get_response()
                assert str(answer["model_version"] if isinstance(answer, dict) else answer.model_version) == version
        with pytest.raises(InferenceServerException, match="names no version that is there; there are: 1, 2"):
            asking.infer("intent", question(client), headers={"x-trimtab-pin-version": "9"})
        with pytest.raises(InferenceServerException, match="other"):
            asking.infer("other", question(client))
        with pytest.raises(InferenceServerException, match="only inference"):
            asking.unload_model("intent")
        assert asking.is_model_ready("intent")


def test_a_version_asked_for_over_http_is_the_one_that_answers(serving: Serving) -> None:
    with tritonclient.http.InferenceServerClient(serving.address) as asking:
        for version in ("1", "2"):
            for _ in range(10):
                answer = asking.infer("intent", question(tritonclient.http), model_version=version)
                assert answer.get_response()["model_version"] == version


def test_a_stream_over_grpc(serving: Serving) -> None:
    answers: list[Any] = []
    with tritonclient.grpc.InferenceServerClient(serving.address) as asking:
        asking.start_stream(lambda result, error: answers.append(error or result))
        for _ in range(5):
            asking.async_stream_infer("intent", question(tritonclient.grpc))
        asking.stop_stream()
    assert len(answers) == 5
    assert all(answer.as_numpy("label").shape == (1, 1) for answer in answers)


def test_grpc_is_counted_under_the_same_names_as_http(serving: Serving) -> None:
    series = 'envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="intent_v1"}'

    def count() -> float:
        time.sleep(1.1)
        page = httpx.get(f"http://127.0.0.1:{serving.state.admin_port}/stats/prometheus").text
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(series))

    serving.give(serving.pool(1, "stable", 100, "intent-v1-1", "intent-v1-2"))
    time.sleep(0.3)
    before = count()
    with tritonclient.grpc.InferenceServerClient(serving.address) as asking:
        for _ in range(10):
            asking.infer("intent", question(tritonclient.grpc))
    with tritonclient.http.InferenceServerClient(serving.address) as asking:
        for _ in range(10):
            asking.infer("intent", question(tritonclient.http))
    assert count() - before == 20
    both(serving)


@pytest.mark.parametrize("client", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_a_replica_that_is_killed_or_taken_out_costs_no_request(serving: Serving, client: Any) -> None:
    wrong: list[Exception] = []
    done = [0]
    stop = threading.Event()

    def load() -> None:
        with client.InferenceServerClient(serving.address) as asking:
            while not stop.is_set():
                try:
                    asking.infer("intent", question(client))
                    done[0] += 1
                except Exception as error:
                    wrong.append(error)

    both(serving)
    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        serving.kill("intent-v1-2")
        time.sleep(0.5)
        both(serving)  # without it
        serving.replica("intent-v1-2", 1)
        both(serving)
        time.sleep(0.3)
        serving.give(serving.pool(2, "stable", 100, "intent-v2-1"))  # version 1 goes
        time.sleep(0.3)
        both(serving)
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:3]
    assert done[0] > 50

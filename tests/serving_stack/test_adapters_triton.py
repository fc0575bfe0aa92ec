"""A real Triton serves an adapter set: which adapter answers, what is unknown or broken, what is held, what moves."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from serving_stack.adapters_base import ensure_base
from serving_stack.adapters_set import add, release
from serving_stack.banking import intents
from serving_stack.export import ADAPTERS
from serving_stack.gateway import GatewayPool, GatewayState, gateway_process, render, write
from serving_stack.repository import UNKNOWN
from serving_stack.triton import ReplicaProcess, replica_process

pytestmark = pytest.mark.integration

QUESTIONS = {
    "I still have not received my new card, I ordered over a week ago.": "card_arrival",
    "How do I change my PIN?": "change_pin",
    "What is the exchange rate?": "exchange_rate",
    "My top up failed, why?": "top_up_failed",
}
TASKS = [f"task{n}" for n in range(8)]
"""The same adapter with labels of its own each, so that it can be told who answered."""


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edge")
    store = folder / "store"
    for number in (1, 2):
        (folder / f"labels{number}.json").write_text(json.dumps(intents()))
        add(store, "banking", ADAPTERS / str(number), folder / f"labels{number}.json", origin=UNKNOWN)
    for task in TASKS:
        (folder / "labels.json").write_text(json.dumps([f"{task}_{name}" for name in intents()]))
        add(store, task, ADAPTERS / "2", folder / "labels.json", origin=UNKNOWN)
    release(store, "edge", 1, dict.fromkeys(TASKS) | {"banking": 1}, ensure_base(), default="banking", origin=UNKNOWN)
    release(store, "edge", 2, {"banking": 2}, None, origin=UNKNOWN)
    return store


class Replica:
    def __init__(self, plan: ReplicaProcess, process: subprocess.Popen[bytes]) -> None:
        self.plan, self.process = plan, process

    def ask(self, text: str, adapter: str | None = None, header: str | None = None) -> httpx.Response:
        body: dict[str, Any] = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [text]}]}
        if adapter is not None:
            body["parameters"] = {"adapter": adapter}
        return httpx.post(self.plan.infer_url, json=body, headers={"X-Trimtab-Adapter": header} if header else {}, timeout=30)

    def label(self, text: str, adapter: str | None = None, **more: Any) -> str:
        return str(self.ask(text, adapter, **more).raise_for_status().json()["outputs"][0]["data"][0])

    def metrics(self) -> dict[str, float]:
        """Once what was counted has been brought to the page: series -> value, without the labels that all have."""
        time.sleep(0.6)
        found = {}
        for line in httpx.get(self.plan.metrics_url).text.splitlines():
            if line.startswith("trimtab_"):
                series, _, value = line.rpartition(" ")
                name, _, labels = series.partition("{")
                own = [each for each in labels.rstrip("}").split(",") if not each.startswith(("model=", "version="))]
                found[f"{name}{{{','.join(own)}}}"] = float(value)
        return found

    def log(self) -> str:
        return (self.plan.folder / "log").read_text(errors="replace")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def started(store: Path, version: int, folder: Path, **settings: Any) -> Iterator[Replica]:
    settings = {"memory_mib": 11, "popularity_file": folder.parent / "popular.json"} | settings
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(f"TRIMTAB_ADAPTERS_{name.upper()}", str(value))
        http, metrics, grpc = free_ports(3)
        plan = replica_process(store, "edge", version, folder, http_port=http, metrics_port=metrics, grpc_port=grpc)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(plan.argv, env=plan.env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    replica = Replica(plan, process)
    try:
        until_ready(replica)
        yield replica
    finally:
        process.terminate()
        try:
            process.wait(plan.exit_timeout + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        plan.clean_up()


def until_ready(replica: Replica) -> None:
    while replica.process.poll() is None:
        try:
            if httpx.get(replica.plan.ready_url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(replica.log())


@pytest.fixture(scope="session")
def replica(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """Version 1 of the set, with room for four adapters of nine."""
    with started(store, 1, tmp_path_factory.mktemp("replicas") / "edge-v1-1") as replica:
        yield replica


def test_the_parameter_the_header_or_the_default_say_which_adapter_answers(replica: Replica) -> None:
    for text, label in QUESTIONS.items():
        assert replica.label(text) == label
        assert replica.label(text, "task3") == f"task3_{label}"
        assert replica.label(text, "task3/1") == f"task3_{label}"
        assert replica.label(text, header="task5") == f"task5_{label}"
        assert replica.label(text, "task2", header="task5") == f"task2_{label}"


def test_grpc_says_it_by_a_parameter(replica: Replica) -> None:
    import numpy as np
    from tritonclient import grpc

    port = next(part.split("=")[1] for part in replica.plan.argv if part.startswith("--grpc-port="))
    client = grpc.InferenceServerClient(f"127.0.0.1:{port}")
    text = grpc.InferInput("text", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([["How do I change my PIN?"]], dtype=np.object_))
    answer = client.infer("edge", [text], parameters={"adapter": "task6"})
    assert answer.as_numpy("label")[0, 0] == b"task6_change_pin"
    answer = client.infer("edge", [text], headers={"x-trimtab-adapter": "task7"})
    assert answer.as_numpy("label")[0, 0] == b"task7_change_pin"
    client.close()


@pytest.mark.parametrize(
    ("text", "adapter", "status", "words"),
    [
        ("hello", "nope", 404, "unknown adapter 'nope': this version serves 9"),
        ("hello", "banking/2", 404, "adapter banking is served in version 1 here, not 2"),
        ("hello", "../../etc/passwd", 404, "unknown adapter '..'"),
        ("hello", "", 400, "which adapter?"),
        ("", "task1", 400, "text is empty"),
        ("x" * 5000, "task1", 400, "at most 2000"),
    ],
)
def test_what_cannot_be_answered_is_said_and_the_others_are_answered(
    replica: Replica, text: str, adapter: str, status: int, words: str
) -> None:
    with ThreadPoolExecutor(8) as pool:
        good = [pool.submit(replica.label, "How do I change my PIN?", "task1") for _ in range(6)]
        answer = replica.ask(text, adapter)
        assert {each.result() for each in good} == {"task1_change_pin"}
    assert answer.status_code == status and words in answer.json()["error"]


def test_memory_stays_bounded_while_every_adapter_is_asked_for_at_once(replica: Replica) -> None:
    before = replica.metrics()
    asked = [task for task in TASKS for _ in range(5)]
    with ThreadPoolExecutor(10) as pool:
        labels = list(pool.map(lambda task: replica.label("What is the exchange rate?", task), asked))
    assert labels == [f"{task}_exchange_rate" for task in asked]
    after = replica.metrics()
    assert after["trimtab_adapters_held_bytes{}"] <= after["trimtab_adapters_limit_bytes{}"] == 11 << 20
    assert 1 <= after["trimtab_adapters_held{}"] <= 4
    grown = {series: value - before.get(series, 0.0) for series, value in after.items()}
    misses = grown['trimtab_adapters_requests_total{result="miss"}']
    assert grown['trimtab_adapters_requests_total{result="hit"}'] + misses == len(asked) and misses >= 4
    loads, moved = grown['trimtab_adapters_loads_total{why="miss"}'], grown['trimtab_adapters_moved_bytes_total{why="miss"}']
    files = sum((ADAPTERS / "2" / name).stat().st_size for name in ("adapter_model.safetensors", "head.safetensors"))
    assert moved >= loads * files > 0
    assert grown["trimtab_adapters_load_seconds_count{}"] >= loads
    assert grown["trimtab_model_confidence_count{}"] == len(asked)
    shares = {s for s in after if s.startswith("trimtab_adapter_request_ratio{")}
    assert len(shares) == len(TASKS) + 1


def test_an_adapter_that_was_changed_is_refused_and_the_replica_goes_on(replica: Replica, store: Path) -> None:
    changed = store / "task0" / "1" / "head.safetensors"
    whole = changed.read_bytes()
    for task in TASKS[1:]:  # so that task0 is not held
        for _ in range(8):
            replica.label("My top up failed, why?", task)
    try:
        changed.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        answer = replica.ask("My top up failed, why?", "task0")
        assert answer.status_code == 500 and "adapter task0 version 1 is broken: head.safetensors is not the file" in answer.text
        changed.unlink()
        time.sleep(5.1)
        answer = replica.ask("My top up failed, why?", "task0")
        assert answer.status_code == 503 and "is not to be had" in answer.text
    finally:
        changed.write_bytes(whole)
    assert replica.label("My top up failed, why?", "task1") == "task1_top_up_failed"
    assert replica.metrics()['trimtab_adapters_load_failures_total{why="miss"}'] == 2
    time.sleep(5.1)
    assert replica.label("My top up failed, why?", "task0") == "task0_top_up_failed"


def test_the_gateway_lets_both_ways_to_say_it_through(replica: Replica, tmp_path: Path) -> None:
    listen, admin = free_ports(2)
    pool = GatewayPool(
        version=1, role="stable", weight=100, endpoints=(("127.0.0.1", urlsplit(replica.plan.infer_url).port or 0),)
    )
    state = GatewayState(fleet="edge", listen_port=listen, admin_port=admin, model="edge", pools=(pool,))
    write(tmp_path, render(state, tmp_path))
    what = gateway_process(tmp_path)
    with (tmp_path / "envoy.log").open("wb") as log:
        envoy = subprocess.Popen(what.argv, stdout=log, stderr=log)
    body: dict[str, Any] = {
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["How do I change my PIN?"]}]
    }
    url = f"{what.url}/v2/models/edge/infer"
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=30)) as client:
            answer = client.post(url, json=body, headers={"X-Trimtab-Adapter": "task2"})
            while answer.status_code == 503 and envoy.poll() is None:  # it listens before it has looked for endpoints
                time.sleep(0.1)
                answer = client.post(url, json=body, headers={"X-Trimtab-Adapter": "task2"})
            assert answer.json()["outputs"][0]["data"] == ["task2_change_pin"], answer.text
            answer = client.post(url, json=body | {"parameters": {"adapter": "task3"}})
            assert answer.json()["outputs"][0]["data"] == ["task3_change_pin"]
            answer = client.post(url, json=body | {"parameters": {"adapter": "nope"}})
            assert answer.status_code == 404 and "unknown adapter 'nope'" in answer.text
    finally:
        envoy.terminate()
        envoy.wait(10)


def test_memory_is_flat_while_adapters_come_and_go_and_clients_leave(replica: Replica) -> None:
    def churn(rounds: int) -> float:
        for number in range(rounds):
            for task in TASKS:
                if number % 5 == 0:  # does not wait for its answer
                    body = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["hello there"]}]}
                    with contextlib.suppress(httpx.TimeoutException):
                        httpx.post(replica.plan.infer_url, json=body | {"parameters": {"adapter": task}}, timeout=0.005)
                replica.label("What is the exchange rate?", task)
        return replica.metrics()["trimtab_model_resident_memory_bytes{}"]

    before = churn(10)
    assert churn(30) - before < 24 << 20  # some 150 adapters came meanwhile, 400 MB
    assert replica.metrics()["trimtab_adapters_held_bytes{}"] <= 11 << 20


def test_a_new_replica_begins_with_what_was_popular(store: Path, tmp_path: Path) -> None:
    (tmp_path / "popular.json").write_text(json.dumps(["task4", "no-more", "task2"]))
    with started(store, 2, tmp_path / "edge-v2-1") as replica:
        before = replica.metrics()
        assert before['trimtab_adapters_loads_total{why="prefetch"}'] == 3  # the default too
        for task in ("task4", "task2", "banking"):
            assert replica.label("How do I change my PIN?", task).endswith("change_pin")
        assert replica.label("How do I change my PIN?", "banking/2") == "change_pin"
        assert replica.metrics()['trimtab_adapters_requests_total{result="miss"}'] == 0
        time.sleep(2.5)
    popular = json.loads((tmp_path / "popular.json").read_text())
    assert popular[0] == "banking" and set(popular) == {"banking", "task2", "task4"}


def test_a_set_that_was_changed_never_becomes_ready_and_says_why(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    listed = copy / "edge" / "1" / "adapters.json"
    listed.write_text(listed.read_text().replace('"version": 1', '"version": 2', 1))
    with (
        pytest.raises(AssertionError, match=r"version 1 of edge is refused.*adapters.json is not the file"),
        started(copy, 1, tmp_path / "edge-v1-9"),
    ):
        pass

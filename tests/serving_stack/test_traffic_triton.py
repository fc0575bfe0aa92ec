"""Traffic to a real Triton, over HTTP and gRPC, straight and through the gateway: the same questions, the same answers."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serving_stack.export import adapter_for, default_cache, ensure_exported
from serving_stack.gateway import GatewayPool, GatewayState, gateway_process, render, write
from serving_stack.repository import publish
from serving_stack.serving_settings import ServingSettings
from serving_stack.traffic_cli import traffic
from serving_stack.triton import replica_process

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The URLs of a replica of version 2, by protocol."""
    folder = tmp_path_factory.mktemp("traffic")
    store = folder / "store"
    publish(store, "intent", 2, ensure_exported(adapter_for(2), default_cache()))
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    http, metrics, grpc = (each.getsockname()[1] for each in sockets)
    for each in sockets:
        each.close()
    serving = ServingSettings(feedback=True)
    plan = replica_process(
        store, "intent", 2, folder / "replica", http_port=http, metrics_port=metrics, grpc_port=grpc, serving=serving
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(plan.argv, env=plan.env, stdout=log, stderr=log, start_new_session=True)
    try:
        while not _ready(plan.ready_url):
            assert process.poll() is None, (folder / "log").read_text(errors="replace")
            time.sleep(0.05)
        direct = {"http": f"http://127.0.0.1:{http}", "grpc": f"grpc://127.0.0.1:{grpc}", "metrics": plan.metrics_url}
        pool = GatewayPool(version=2, role="stable", weight=100, endpoints=(("127.0.0.1", http),), grpc=(("127.0.0.1", grpc),))
        with _gateway(folder / "gateway", pool) as address:
            yield {**direct, "gateway-http": f"http://{address}", "gateway-grpc": f"grpc://{address}"}
    finally:
        process.terminate()
        process.wait(plan.exit_timeout + 10)
        plan.clean_up()


@contextlib.contextmanager
def _gateway(folder: Path, pool: GatewayPool) -> Iterator[str]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    listen, admin = (probe.getsockname()[1] for probe in probes)
    for probe in probes:
        probe.close()
    state = GatewayState(fleet="intent", listen_port=listen, admin_port=admin, model="intent", grpc=True, pools=(pool,))
    write(folder, render(state, folder))
    what = gateway_process(folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(what.argv, stdout=log, stderr=log)
    try:
        while not _ready(what.ready_url):
            assert process.poll() is None, (folder / "log").read_text(errors="replace")
            time.sleep(0.05)
        yield f"127.0.0.1:{listen}"
    finally:
        process.terminate()
        process.wait(10)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_both_protocols_get_the_same_right_answers(triton: dict[str, str], tmp_path: Path) -> None:
    outcomes: dict[str, list[tuple[float, str]]] = {}
    for protocol in ("http", "grpc", "gateway-http", "gateway-grpc"):
        url = triton[protocol]
        log = tmp_path / protocol
        argv = ["--url", url, "--rate", "30", "--duration", "3", "--seed", "5", "--requests", str(log), "--json"]
        result = CliRunner().invoke(traffic, argv, catch_exceptions=False)
        summary: dict[str, Any] = json.loads(result.stdout)
        assert summary["errors"] == summary["unfinished"] == 0
        assert set(summary["versions"]) == {"2"}
        accuracy = summary["versions"]["2"]["accuracy"]
        assert accuracy["low"] <= 0.9315 <= accuracy["high"]  # what version 2 is known to reach on the whole test split
        requests = [json.loads(line) for line in log.read_text().splitlines()]
        outcomes[protocol] = sorted((one["at"], one["outcome"]) for one in requests)
        assert {one.get("assigned") for one in requests} == ({"2"} if "gateway" in protocol else {None})
    assert outcomes["http"] == outcomes["grpc"] == outcomes["gateway-http"] == outcomes["gateway-grpc"]


@pytest.mark.parametrize("protocol", ["gateway-http", "gateway-grpc"])
def test_a_pinned_version_answers_and_one_that_is_not_there_does_not(triton: dict[str, str], protocol: str) -> None:
    found = []
    for pin in ("2", "7"):
        argv = ["--url", triton[protocol], "--pin-version", pin, "--rate", "20", "--arrivals", "constant", "--duration", "0.5"]
        found.append(json.loads(CliRunner().invoke(traffic, argv, catch_exceptions=False).stdout))
    there, absent = found
    assert (there["ok"] + there["wrong"], there["errors"]) == (9, 0)
    assert absent["error_kinds"] == {"HTTP 404" if protocol == "gateway-http" else "gRPC UNIMPLEMENTED": 9}


def test_an_unknown_model_is_an_error_in_both(triton: dict[str, str]) -> None:
    kinds = {}
    for protocol in ("http", "grpc"):
        url = triton[protocol]
        argv = ["--url", url, "--model", "nobody", "--rate", "20", "--arrivals", "constant", "--duration", "0.5"]
        kinds[protocol] = json.loads(CliRunner().invoke(traffic, argv, catch_exceptions=False).stdout)["error_kinds"]
    assert kinds == {"http": {"HTTP 404": 9}, "grpc": {"gRPC NOT_FOUND": 9}}


def test_the_replica_is_told_which_of_its_answers_were_right(triton: dict[str, str]) -> None:
    told = {"ok": 0, "wrong": 0}
    for protocol in ("http", "grpc", "gateway-http", "gateway-grpc"):
        argv = ["--url", triton[protocol], "--rate", "30", "--duration", "2", "--feedback-after", "0.5"]
        summary = json.loads(CliRunner().invoke(traffic, argv, catch_exceptions=False).stdout)
        assert summary["feedback"] == {"told": summary["ended"], "failed": 0, "failed_kinds": {}}
        told = {outcome: told[outcome] + summary[outcome] for outcome in told}
    time.sleep(1.5)  # a replica brings its counts to the page once a second
    with urllib.request.urlopen(triton["metrics"], timeout=5) as response:
        page = [
            line.split() for line in response.read().decode().splitlines() if line.startswith("trimtab_model_feedback_total{")
        ]
    seen = {"ok" if 'outcome="right"' in series else "wrong": float(value) for series, value in page}
    assert seen == told

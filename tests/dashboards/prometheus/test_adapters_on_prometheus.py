"""Each query about adapters returns data on a real Prometheus that scrapes a real replica of an adapter set."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from benchmarks.prometheus_process import Prometheus
from dashboards.queries import QUERIES
from dashboards.queries_adapters import ADAPTERS
from serving_stack.adapters_base import ensure_base
from serving_stack.adapters_set import add, release
from serving_stack.banking import intents
from serving_stack.export import ADAPTERS as SHIPPED
from serving_stack.repository import UNKNOWN
from serving_stack.triton import replica_process

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, float]]:
    """Four adapters, room for two; hits, misses, an unknown one and one that is broken."""
    folder = tmp_path_factory.mktemp("adapters")
    (folder / "labels.json").write_text(json.dumps(intents()))
    for name in "abcd":
        add(folder / "store", name, SHIPPED / "2", folder / "labels.json", origin=UNKNOWN)
    release(folder / "store", "edge", 1, dict.fromkeys("abcd"), ensure_base(), default="a", origin=UNKNOWN)
    (folder / "store" / "d" / "1" / "head.safetensors").write_bytes(b"changed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_ADAPTERS_MEMORY_MIB", "6")
        patch.setenv("TRIMTAB_ADAPTERS_POPULARITY_FILE", str(folder / "popular.json"))
        http, metrics = free_port(), free_port()
        plan = replica_process(folder / "store", "edge", 1, folder / "edge-v1-1", http_port=http, metrics_port=metrics)
    labels = {"fleet": "intent", "role": "triton", "target": "edge-v1-1", "pool": "stable", "version": "1"}
    targets = folder / "targets.json"
    targets.write_text(json.dumps([{"targets": [f"127.0.0.1:{metrics}"], "labels": labels}]))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(plan.argv, env=plan.env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    prometheus = Prometheus(folder / "prometheus", free_port(), targets, {})
    try:
        while not _ready(plan.ready_url):
            assert process.poll() is None, (folder / "log").read_text(errors="replace")
            time.sleep(0.1)
        prometheus.start()
        start = time.time()
        for number in range(60):
            popular = "b" if number < 40 else "c"
            for adapter in ("a", popular, popular, "bcd"[number % 3], "nobody"):
                tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["How do I change my PIN?"]}
                httpx.post(plan.infer_url, json={"inputs": [tensor], "parameters": {"adapter": adapter}}, timeout=20)
            time.sleep(0.2)
        time.sleep(3)
        yield prometheus, start
    finally:
        prometheus.stop()
        process.terminate()
        process.wait(30)
        plan.clean_up()


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_query_returns_data(scraped: tuple[Prometheus, float], name: str) -> None:
    prometheus, start = scraped
    query = QUERIES[name]
    found: list[Any] = prometheus.range(
        query.expr.replace("$fleet", "intent").replace("$__rate_interval", "10s"), start, time.time()
    )
    assert found, query.expr
    assert set(re.findall(r"{{(\w+)}}", query.legend)) <= {label for series in found for label in series["metric"]}
    values = [float(value) for series in found for _, value in series["values"]]
    assert not any(value < 0 for value in values)  # NaN: of no load there is no quantile
    assert any(value > 0 for value in values), "nothing of it was ever seen"


def test_what_the_panels_say_is_what_happened(scraped: tuple[Prometheus, float]) -> None:
    prometheus, _ = scraped

    def last(expr: str) -> dict[str, float]:
        return {s["metric"].get("result", s["metric"].get("adapter", "")): float(s["value"][1]) for s in prometheus.now(expr)}

    assert last("trimtab_adapters_requests_total")["unknown"] == 60
    assert last("trimtab_adapters_held") == {"": 2.0}
    answers = last("trimtab_adapter_answers_total")
    assert answers.get("b", 0) > answers.get("c", 0)
    assert last("sum (trimtab_adapters_load_failures_total)")[""] >= 1

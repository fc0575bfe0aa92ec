"""Each query about quality returns data on a real Prometheus that scrapes real replicas of two versions under traffic."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from benchmarks.prometheus_process import Prometheus
from dashboards.queries import QUERIES
from dashboards.queries_quality import QUALITY
from dashboards.rules.recording_quality import QUALITY as RECORDED
from serving_stack.export import adapter_for, default_cache, ensure_exported
from serving_stack.intervals import wilson
from serving_stack.repository import publish
from serving_stack.serving_settings import ServingSettings
from serving_stack.traffic_cli import traffic
from serving_stack.triton import replica_process

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MAY_BE_ZERO = {"quality_truncated", "quality_padding"}
"""Short questions, one at a time: nothing is cut off, and a run of one text has no padding."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, float, dict[str, Any]]]:
    """Two versions with traffic that tells them the right labels, and an empty text for each; what the traffic counted."""
    folder = tmp_path_factory.mktemp("quality")
    with contextlib.ExitStack() as running:
        urls, groups = {}, []
        for version in (1, 2):
            publish(folder / "store", "intent", version, ensure_exported(adapter_for(version), default_cache()))
            http, metrics = free_port(), free_port()
            urls[version] = running.enter_context(_replica(folder, version, http, metrics))
            labels = {"fleet": "intent", "role": "triton", "target": f"intent-v{version}-1", "version": str(version)}
            groups.append({"targets": [f"127.0.0.1:{metrics}"], "labels": labels})
        (folder / "targets.json").write_text(json.dumps(groups))
        prometheus = Prometheus(folder / "prometheus", free_port(), folder / "targets.json", {})
        running.callback(prometheus.stop)
        prometheus.start()
        start, counted = time.time(), {}
        time.sleep(3)  # a first scrape, from which counters grow
        for version, url in urls.items():
            empty = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [""]}]}
            assert httpx.post(f"{url}/v2/models/intent/infer", json=empty).status_code == 400
            argv = ["--url", url, "--rate", "20", "--duration", "8", "--feedback-after", "1", "--json"]
            result = CliRunner().invoke(traffic, argv, catch_exceptions=False)
            counted[str(version)] = json.loads(result.stdout)
        time.sleep(4)
        yield prometheus, start, counted


@contextlib.contextmanager
def _replica(folder: Path, version: int, http: int, metrics: int) -> Iterator[str]:
    serving = ServingSettings(feedback=True)
    plan = replica_process(
        folder / "store", "intent", version, folder / f"v{version}", http_port=http, metrics_port=metrics, serving=serving
    )
    with (folder / f"log-{version}").open("wb") as log:
        process = subprocess.Popen(plan.argv, env=plan.env, stdout=log, stderr=log, start_new_session=True)
    try:
        while not _ready(plan.ready_url):
            assert process.poll() is None, (folder / f"log-{version}").read_text(errors="replace")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{http}"
    finally:
        process.terminate()
        process.wait(plan.exit_timeout + 10)
        plan.clean_up()


def _ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def filled(expr: str) -> str:
    return expr.replace("$fleet", "intent").replace("$__rate_interval", "10s")


@pytest.mark.parametrize("name", QUALITY)
def test_every_query_returns_data_of_both_versions(told: tuple[Prometheus, float, dict[str, Any]], name: str) -> None:
    prometheus, start, _ = told
    query = QUERIES[name]
    found: list[Any] = prometheus.range(filled(query.expr), start, time.time())
    assert {series["metric"]["version"] for series in found} == {"1", "2"}, query.expr
    assert set(re.findall(r"{{(\w+)}}", query.legend)) <= {label for series in found for label in series["metric"]}
    values = [float(value) for series in found for _, value in series["values"] if value != "NaN"]
    assert all(value >= 0 for value in values)
    assert name in MAY_BE_ZERO or any(value > 0 for value in values), "nothing of it was ever seen"


@pytest.mark.parametrize("name", [record.name for record in RECORDED])
def test_every_recording_rule_records(told: tuple[Prometheus, float, dict[str, Any]], name: str) -> None:
    prometheus, start, _ = told
    found: list[Any] = prometheus.range(name, start, time.time())
    assert found
    assert all(series["metric"]["fleet"] == "intent" for series in found)
    if name.startswith("version:"):
        assert {series["metric"]["version"] for series in found} == {"1", "2"}


def test_the_accuracy_that_feedback_says_is_that_of_the_traffic(told: tuple[Prometheus, float, dict[str, Any]]) -> None:
    prometheus, _, counted = told

    def last(name: str) -> dict[str, float]:
        return {s["metric"]["version"]: float(s["value"][1]) for s in prometheus.now(filled(QUERIES[name].expr))}

    right, low, high = last("quality_accuracy"), last("quality_accuracy_low"), last("quality_accuracy_high")
    for version, summary in counted.items():
        assert summary["feedback"]["told"] == summary["ended"] > 100
        assert right[version] == pytest.approx(summary["accuracy"]["value"], abs=0.02)
        # PromQL extrapolates counts a little; the interval is that of about as many.
        expected = wilson(summary["ok"], summary["ok"] + summary["wrong"])
        assert (low[version], high[version]) == pytest.approx(expected, abs=0.03)
        assert low[version] < right[version] < high[version]


def test_shares_of_classes_add_up(told: tuple[Prometheus, float, dict[str, Any]]) -> None:
    prometheus, start, _ = told
    found = prometheus.range(f"sum by (version) ({filled(QUERIES['quality_classes'].expr)})", start, time.time())
    values = [float(value) for series in found for _, value in series["values"] if value != "NaN"]
    assert values == pytest.approx([1.0] * len(values))

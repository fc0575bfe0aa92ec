"""A real Triton with many adapters and room for a tenth of them, asked one request after the other by a drifting Zipf's law."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.adapters import compute
from benchmarks.adapters.play import play
from benchmarks.adapters.workloads import drawn
from benchmarks.frame import Cell, Options
from serving_stack import banking
from serving_stack.adapters_base import ensure_base
from serving_stack.adapters_set import release
from serving_stack.edge_model.adapters import INTENTS
from serving_stack.edge_model.trend import Trend
from serving_stack.repository import UNKNOWN, publish_files
from serving_stack.triton import ReplicaProcess, replica_process
from trimtab.errors import Unavailable

SET, SEED = "edge", 5


def measure(options: Options) -> compute.Outcome:
    """100 adapters and 4,000 requests; quick: 30 and 300. Hits are told apart by playing the policy beside the replica."""
    count, asked_times = (30, 300) if options.quick else (100, 4_000)
    memory_mib = max(1, round(0.1 * count * compute.sizes().adapter_in_memory / (1 << 20)))
    places = (memory_mib << 20) // compute.sizes().adapter_in_memory
    asked = drawn(asked_times, SEED, drift=0.01, adapters=count)
    with tempfile.TemporaryDirectory(prefix="trimtab-adapters-") as name:
        folder = Path(name)
        _publish(folder / "store", count)
        options.say(f"{count} adapters published; a replica with {memory_mib} MiB for them")
        with _replica(folder, memory_mib) as replica:
            beside, took = Trend(places), dict[bool, list[float]](((True, []), (False, [])))
            texts = [question.text for question in banking.questions("train")[:asked_times]]
            with httpx.Client(timeout=30) as client:
                for key, text in zip(asked, texts, strict=True):
                    hit = beside.ask(key)
                    if not hit:
                        beside.put(key, 1)
                    took[hit].append(_ask(client, replica.infer_url, f"t{key}", text))
            time.sleep(1)
            page = _page(replica.metrics_url)
    hits, misses = page['requests_total{result="hit"}'], page['requests_total{result="miss"}']
    moved = sum(page[f'moved_bytes_total{{why="{why}"}}'] for why in ("miss", "prefetch"))
    figures: dict[str, float | None] = {
        "served_hit_ratio": hits / (hits + misses),
        "served_simulated_hit_ratio": play(Trend(places), asked).hit_ratio,
        "served_moved_mb": moved / 1e6,
        "served_load_ms": 1000 * page["load_seconds_sum{}"] / page["load_seconds_count{}"],
    }
    rows: list[dict[str, Cell]] = []
    for word, hit in (("hit", True), ("miss", False)):
        ordered = sorted(took[hit])
        figures[f"served_{word}_p50_ms"] = statistics.median(ordered)
        figures[f"served_{word}_p99_ms"] = ordered[int(0.99 * len(ordered))]
        rows.append(
            {
                "what": f"Triton, {count} adapters, room for {places}: {word}",
                "by": "trend (served)",
                "hit_ratio": round(hits / (hits + misses), 4),
                "moved": int(page['loads_total{why="miss"}']),
                "prefetched": int(page['loads_total{why="prefetch"}']),
                "ms": round(statistics.median(ordered), 2),
                "ms_p99": round(ordered[int(0.99 * len(ordered))], 2),
            }
        )
    return rows, figures


def _publish(store: Path, count: int) -> None:
    content = compute.files()
    names = banking.intents()
    for number in range(count):
        own = {INTENTS: json.dumps([f"t{number} {name}" for name in names]).encode()}
        publish_files(store, f"t{number}", None, {**content, **own}, origin=UNKNOWN)
    release(store, SET, 1, {f"t{number}": None for number in range(count)}, ensure_base(), origin=UNKNOWN)


@contextmanager
def _replica(folder: Path, memory_mib: int) -> Iterator[ReplicaProcess]:
    settings = {"MEMORY_MIB": str(memory_mib), "POPULARITY_FILE": str(folder / "popular.json")}
    before = dict(os.environ)
    os.environ |= {f"TRIMTAB_ADAPTERS_{name}": value for name, value in settings.items()}
    try:
        http, metrics = _free_port(), _free_port()
        plan = replica_process(folder / "store", SET, 1, folder / "edge-v1-1", http_port=http, metrics_port=metrics)
    finally:
        os.environ.clear()
        os.environ |= before
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(plan.argv, env=plan.env, stdout=log, stderr=subprocess.STDOUT)
    try:
        _until_ready(plan, process, folder / "log")
        yield plan
    finally:
        process.terminate()
        process.wait(30)
        plan.clean_up()


def _until_ready(plan: ReplicaProcess, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(plan.ready_url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise Unavailable(f"the replica does not become ready: {log.read_text(errors='replace')[-500:]}")


def _ask(client: httpx.Client, url: str, adapter: str, text: str) -> float:
    """Milliseconds until the answer, which must be that of the adapter."""
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": [text]}
    began = time.perf_counter()
    answer = client.post(url, json={"inputs": [tensor], "parameters": {"adapter": adapter}})
    took = (time.perf_counter() - began) * 1000
    label = str(answer.raise_for_status().json()["outputs"][0]["data"][0])
    if not label.startswith(f"{adapter} "):
        raise Unavailable(f"adapter {adapter} was asked, {label!r} was the answer")
    return took


def _page(url: str) -> dict[str, float]:
    """The series about adapters, without what all of them share."""
    found = {}
    for line in httpx.get(url).text.splitlines():
        if line.startswith("trimtab_adapters_"):
            series, _, value = line.rpartition(" ")
            name, _, labels = series.removeprefix("trimtab_adapters_").partition("{")
            own = [each for each in labels.rstrip("}").split(",") if not each.startswith(("model=", "version="))]
            found[f"{name}{{{','.join(own)}}}"] = float(value)
    return found


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

"""A small world that answers scrapes like the real pages do: Triton's, Envoy's, the traffic generator's, DCGM's.

Requests are drawn (Poisson), served at a latency with noise, counted into cumulative counters. Faults are switches.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from detectors import models_store
from detectors.models_store import Models
from detectors.pipeline import Output, Pipeline
from detectors.settings import DetectSettings
from detectors.training import train
from trimtab import codec
from trimtab.messages import Finding, Score, Snapshot

FLEET = "intent"
START = 1_700_000_000.0
LE_MS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, float("inf"))
LE_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, float("inf"))


@dataclass
class Replica:
    """One Triton: its counters and what is wrong with it."""

    name: str
    version: int = 1
    role: str = "stable"
    infer: float = 0.010
    extra: float = 0.0
    failing: float = 0.0
    wrong: float = 0.07
    leak: float = 0.0
    state: str = "up"  # up, starting, down, hang
    weight: float = 1.0
    success: float = 0.0
    failure: float = 0.0
    executions: float = 0.0
    request_us: float = 0.0
    queue_us: float = 0.0
    infer_us: float = 0.0
    pending: float = 0.0
    memory: float = 220e6
    confidence_sum: float = 0.0
    frozen: dict[str, float | None] | None = None
    gpu: dict[str, float | None] = field(default_factory=lambda: {"XID_ERRORS": 0.0, "FB_USED": 9000.0})

    def restart(self) -> None:
        """A new process under the same name: counters begin at 0."""
        self.success = self.failure = self.executions = self.request_us = self.queue_us = self.infer_us = self.confidence_sum = (
            0.0
        )

    def page(self) -> dict[str, float | None]:
        label = f'{{model="intent",version="{self.version}"}}'
        served = self.success + self.failure
        return {
            f"nv_inference_request_success{label}": self.success,
            f"nv_inference_request_failure{label}": self.failure,
            f"nv_inference_count{label}": served,
            f"nv_inference_exec_count{label}": self.executions,
            f"nv_inference_request_duration_us{label}": self.request_us,
            f"nv_inference_queue_duration_us{label}": self.queue_us,
            f"nv_inference_compute_infer_duration_us{label}": self.infer_us,
            f"nv_inference_pending_request_count{label}": self.pending,
            f"trimtab_model_resident_memory_bytes{label}": self.memory,
            f"trimtab_model_confidence_sum{label}": self.confidence_sum,
            f"trimtab_model_confidence_count{label}": served,
        }


class World:
    """A fleet behind a gateway, scraped once per tick into a pipeline; times are those of the world, not of the test."""

    def __init__(
        self, replicas: list[Replica], rate: float = 20.0, seed: int = 0, gpus: bool = True, others: bool = True
    ) -> None:
        self.replicas = {r.name: r for r in replicas}
        self.rate, self.gpus, self.others = rate, gpus, others
        self.rng = np.random.default_rng(seed)
        self.tick = 0
        self.arrived = 0.0
        self.clusters: dict[int, dict[str, Any]] = {}
        self.outage: set[str] | None = None  # targets that cannot be scraped
        self.outage_kind = "timeout"  # timeout, silence, frozen
        self.took = 0.01  # seconds that a scrape takes
        self.kept: dict[str, dict[str, float | None]] = {}
        self.gateway_errors = 0.0
        self.scores: list[Score] = []
        self.findings: list[Finding] = []

    @property
    def now(self) -> float:
        return START + self.tick

    def serve(self) -> None:
        """One second of traffic."""
        arrivals = int(self.rng.poisson(self.rate))
        self.arrived += arrivals
        for r in self.replicas.values():
            r.pending = 0.0 if r.weight == 0 else r.pending
        serving = [r for r in self.replicas.values() if r.state != "starting" and r.weight > 0]
        total = sum(r.weight for r in serving)
        shares = self.rng.multinomial(arrivals, [r.weight / total for r in serving]) if total else []
        for r, n in zip(serving, shares, strict=True):
            self._serve(r, int(n))

    def _serve(self, r: Replica, n: int) -> None:
        c = self.clusters.setdefault(
            r.version, {"2": 0.0, "5": 0.0, "sum": 0.0, "timeouts": 0.0, "ms": [], "ok": 0.0, "wrong": 0.0, "error": 0.0}
        )
        if r.state == "hang":
            r.pending += n
            c["timeouts"] += n
            c["error"] += n
            return
        if r.state == "down":
            c["5"] += n
            c["error"] += n
            return
        r.pending = 0.0
        if not n:
            return
        failed = int(self.rng.binomial(n, r.failing))
        lost = int(self.rng.binomial(n - failed, self.gateway_errors))
        good = n - failed
        busy = max(1.0, n * (r.infer + r.extra) / 0.8)  # batches grow when one instance cannot keep up
        seconds = (r.infer * busy**0.7 + r.extra) * np.exp(self.rng.normal(0, 0.15, good))
        queue = 0.0005 + (0.05 * (busy - 1) if busy > 1 else 0.0)
        r.success, r.failure = r.success + good, r.failure + failed
        r.executions += max(1.0, n / busy)
        r.infer_us += float(seconds.sum()) * 1e6
        r.queue_us += queue * good * 1e6
        r.request_us += (float(seconds.sum()) + (queue + 0.001) * good) * 1e6
        r.pending = float(self.rng.poisson(n * (r.infer + r.extra) * 0.3))
        r.memory += r.leak * n + float(self.rng.normal(0, 2e4))
        r.confidence_sum += float(np.clip(self.rng.normal(0.85, 0.05, n), 0, 1).sum())
        wrong = int(self.rng.binomial(good - lost, r.wrong))
        c["2"] += good - lost
        c["5"] += failed + lost
        c["error"] += failed + lost
        c["wrong"] += wrong
        c["ok"] += good - lost - wrong
        c["ms"] += [float((s + queue) * 1000 + 1) for s in seconds]
        c["sum"] += float((seconds + queue).sum()) * 1000 + good

    def pages(self) -> list[tuple[str, str, Replica | None, dict[str, float | None] | None, str | None]]:
        """(target, role, replica, series or None, error) of each scrape."""
        found: list[tuple[str, str, Replica | None, dict[str, float | None] | None, str | None]] = []
        for r in self.replicas.values():
            if r.state == "up":
                found.append((r.name, "triton", r, r.frozen or r.page(), None))
            else:
                error = "connection refused" if r.state in ("down", "starting") else "timed out: no whole answer within 0.8 s"
                found.append((r.name, "triton", r, None, error))
        if self.others:
            found.append(("gateway", "gateway", None, self._envoy(), None))
            found.append(("traffic", "app", None, self._traffic(), None))
            if self.gpus:
                found.append(("gpu-node", "gpu", None, self._dcgm(), None))
        return found

    def _envoy(self) -> dict[str, float | None]:
        page: dict[str, float | None] = {"envoy_server_uptime{}": self.now - START}
        page[f'envoy_http_downstream_rq_total{{envoy_http_conn_manager_prefix="{FLEET}"}}'] = self.arrived
        for version, c in self.clusters.items():
            name = f'envoy_cluster_name="{FLEET}_v{version}"'
            page[f"envoy_cluster_upstream_rq_timeout{{{name}}}"] = c["timeouts"]
            for code in ("2", "5"):
                if c[code]:
                    page[f'envoy_cluster_upstream_rq_xx{{{name},envoy_response_code_class="{code}"}}'] = c[code]
            ms = np.array(c["ms"])
            for le in LE_MS:
                text = "+Inf" if np.isinf(le) else f"{le:g}"
                page[f'envoy_cluster_upstream_rq_time_bucket{{{name},le="{text}"}}'] = float((ms <= le).sum())
            page[f"envoy_cluster_upstream_rq_time_sum{{{name}}}"] = c["sum"]
            page[f"envoy_cluster_upstream_rq_time_count{{{name}}}"] = float(len(ms))
        return page

    def _traffic(self) -> dict[str, float | None]:
        page: dict[str, float | None] = {}
        for version, c in self.clusters.items():
            for outcome in ("ok", "wrong", "error"):
                page[f'trimtab_traffic_requests_total{{outcome="{outcome}",version="{version}"}}'] = c[outcome]
            ms = np.array(c["ms"]) / 1000
            for le in LE_S:
                text = "+Inf" if np.isinf(le) else f"{le:g}"
                page[f'trimtab_traffic_latency_seconds_bucket{{le="{text}",version="{version}"}}'] = float((ms <= le).sum())
        return page

    def _dcgm(self) -> dict[str, float | None]:
        page: dict[str, float | None] = {}
        for i, r in enumerate(self.replicas.values()):
            label = f'{{Hostname="node1",UUID="GPU-{i}",gpu="{i}",pod="{r.name}"}}'
            gone = r.gpu["XID_ERRORS"] == 79
            page[f"DCGM_FI_DEV_GPU_TEMP{label}"] = 45.0 if gone else round(45 + float(self.rng.normal(0, 1)))
            page[f"DCGM_FI_DEV_POWER_USAGE{label}"] = 120.0 if gone else float(120 + self.rng.normal(0, 3))
            page[f"DCGM_FI_DEV_GPU_UTIL{label}"] = 35.0 if gone else round(35 + float(self.rng.normal(0, 4)))
            page[f"DCGM_FI_DEV_XID_ERRORS{label}"] = r.gpu["XID_ERRORS"]
            if r.gpu["FB_USED"] is not None:
                page[f"DCGM_FI_DEV_FB_USED{label}"] = r.gpu["FB_USED"]
        return page

    def scrape(self) -> list[Snapshot]:
        """What the collectors send in this tick; scrapes start early in it, one target after the other."""
        found = []
        for i, (target, role, r, series, error) in enumerate(self.pages()):
            out = self.outage is not None and target in self.outage
            if out and self.outage_kind == "silence":
                continue
            if out and self.outage_kind == "frozen":
                series = self.kept.get(target, series)
            elif out:
                series, error = None, "timed out: no whole answer within 0.8 s"
            if series is not None:
                self.kept[target] = series
            found.append(
                Snapshot(
                    target=target,
                    fleet=FLEET,
                    role=role,  # type: ignore[arg-type]
                    pool=r.role if r else None,  # type: ignore[arg-type]
                    version=r.version if r else None,
                    time=self.now + 0.02 * i,
                    took=0.8 if series is None else self.took,
                    up=series is not None,
                    error=None if series is not None else error,
                    series=series or {},
                )
            )
        return found

    def step(self) -> list[Snapshot]:
        """A second of traffic, then the scrape of the next tick."""
        self.serve()
        self.tick += 1
        return self.scrape()

    def all_targets(self) -> set[str]:
        return {target for target, *_ in self.pages()}

    def run(self, pipeline: Pipeline, ticks: int, before: Callable[[World], None] | None = None) -> list[Finding]:
        """Let `ticks` seconds pass; returns the findings of this stretch, keeps all in `findings` and `scores`."""
        first = len(self.findings)
        for _ in range(ticks):
            if before:
                before(self)
            for snapshot in self.step():
                self._keep(pipeline.on_snapshot(snapshot, snapshot.time + snapshot.took))
            self._keep(pipeline.on_time(self.now + 0.9))
        return self.findings[first:]

    def _keep(self, output: Output) -> None:
        for message in (*output.scores, *output.findings):
            assert codec.decode_as(type(message), codec.encode(message)) == message
        self.scores += output.scores
        self.findings += output.findings


def kinds(findings: list[Finding]) -> set[tuple[str, str | int | None]]:
    """(kind, target or version) of all findings, resolved or not."""
    return {(f.kind, f.target if f.target is not None else f.version) for f in findings}


@pytest.fixture(scope="session")
def world() -> type[World]:
    """The class: `world([replica("a")])`."""
    return World


@pytest.fixture(scope="session")
def replica() -> type[Replica]:
    return Replica


@pytest.fixture(scope="session")
def named() -> Callable[[list[Finding]], set[tuple[str, str | int | None]]]:
    return kinds


@pytest.fixture(scope="session")
def settings() -> DetectSettings:
    return DetectSettings(grace=0.6)  # in the stories 0.9 s pass from the start of a scrape to the next look


@pytest.fixture(scope="session")
def recording() -> list[Snapshot]:
    """A minute of a healthy fleet of one replica, as training sees it."""
    w = World([Replica("intent-v1-1")], seed=11)
    return [snapshot for _ in range(55) for snapshot in w.step()]


@pytest.fixture(scope="session")
def models(recording: list[Snapshot], settings: DetectSettings, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Really trained, once per session: what one worker of pytest-xdist trains, the others load."""
    folder = tmp_path_factory.getbasetemp().parent / "detectors-trained"
    if os.environ.get("PYTEST_XDIST_WORKER") is None:
        folder = tmp_path_factory.mktemp("trained")
    with FileLock(f"{folder}.lock"):
        if not (folder / models_store.DIGEST).exists():
            models_store.save(train(recording, FLEET, settings, lambda step, share: None), folder)
    return models_store.load(folder)

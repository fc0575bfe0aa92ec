"""An operator in this process that leads on a real API server, and what tests ask of the cluster."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from autoscaler.actuators.kubernetes_pods import Templates
from autoscaler.operator.process import Operator
from autoscaler.operator.settings import OperatorSettings
from autoscaler.settings import AutoscaleSettings
from trimtab.kube import Kube, condition, fleet_name, fleet_path, path_of
from trimtab.memory_bus import MemoryBus
from trimtab.messages import DECISIONS, FINDINGS, TELEMETRY, Decision, Finding, Snapshot

Json = dict[str, Any]
Until = Callable[..., Any]


class World:
    """`start` operators (candidates for one Lease); `traffic` and `find` are what collectors and detectors would say."""

    def __init__(self, kube: Kube, namespace: str, templates: Templates, until: Until) -> None:
        self.kube, self.namespace, self.until, self.templates = kube, namespace, until, templates
        self.bus = MemoryBus()
        self.bus.ensure_topics()
        self.producer = self.bus.producer()
        self.counts: dict[str, float] = {}
        self.lease = f"trimtab-{uuid.uuid4().hex[:6]}"
        self.running: list[tuple[Operator, threading.Thread, threading.Event]] = []

    def start(self, kube: Kube | None = None, **changes: Any) -> Operator:
        settings = OperatorSettings(
            **{
                "namespace": self.namespace,
                "instance": self.namespace,
                "lease_namespace": self.namespace,
                "lease_name": self.lease,
                "step_seconds": 0.3,
                "memory_seconds": 2.0,
                **changes,
            }
        )
        base = AutoscaleSettings(scale_down_window_seconds=5.0)
        operator = Operator(kube or self.kube, self.bus, settings, base, f"op-{uuid.uuid4().hex[:6]}", templates=self.templates)
        stop = threading.Event()
        thread = threading.Thread(target=operator.run, args=(stop,), daemon=True)
        thread.start()
        self.running.append((operator, thread, stop))
        return operator

    def stop(self) -> None:
        for _, _, stop in self.running:
            stop.set()
        for _, thread, _ in self.running:
            thread.join(20)
        self.running.clear()

    def fleet(self, name: str) -> Json:
        return self.kube.get(fleet_path(self.namespace, name))

    def status(self, name: str) -> Json:
        return dict(self.fleet(name).get("status", {}))

    def spec(self, name: str, **spec: Any) -> Json:
        return self.kube.patch(fleet_path(self.namespace, name), {"spec": spec})

    def annotate(self, name: str, **annotations: str | None) -> Json:
        body = {"metadata": {"annotations": {f"trimtab.dev/{key.replace('_', '-')}": text for key, text in annotations.items()}}}
        return self.kube.patch(fleet_path(self.namespace, name), body)

    def ask(self, name: str, kind: str, **fields: Any) -> Json:
        """A request of a person; returns its answer."""
        request = {"id": uuid.uuid4().hex[:8], "at": time.time(), "by": "a test", **fields}
        self.annotate(name, **{f"request_{kind}": msgspec.json.encode(request).decode()})

        def answer() -> Json | None:
            return next((each for each in self.status(name).get("requests", []) if each["id"] == request["id"]), None)

        return dict(self.until(answer, f"an answer to {kind}", 60))

    def condition(self, name: str, kind: str) -> Json:
        return condition({"status": self.status(name)}, kind)

    def is_so(self, name: str, kind: str, reason: str, patience: float = 120.0) -> Json:
        """Waits for a condition with this reason."""

        def found() -> Json | None:
            condition = self.condition(name, kind)
            return condition if condition.get("reason") == reason else None

        return dict(self.until(found, f"{kind} {reason}", patience))

    def ready(self, name: str) -> None:
        self.is_so(name, "Ready", "Serving")

    def pods(self, name: str, role: str = "triton", state: str = "serving") -> list[Json]:
        selector = f"trimtab.dev/fleet={name},trimtab.dev/role={role}" + (f",trimtab.dev/state={state}" if state else "")
        found = self.kube.get(path_of("pods", self.namespace), labelSelector=selector)["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def deployment(self, name: str) -> Json:
        return self.kube.get(path_of("deployments", self.namespace, name, api="apps/v1"))

    def events(self, name: str) -> dict[str, Json]:
        found = self.kube.get(path_of("events", self.namespace), fieldSelector=f"involvedObject.name={name}")["items"]
        return {each["reason"]: each for each in found if each["involvedObject"]["kind"] == "ModelFleet"}

    def decisions(self, name: str, action: str | None = None) -> list[Decision]:
        records = self.bus.consumer([DECISIONS], group=None).poll(0)
        fleet = fleet_name(self.namespace, name)
        found = [each.message for each in records if isinstance(each.message, Decision) and each.message.fleet == fleet]
        return [each for each in found if action is None or (each.action == action and each.outcome == "applied")]

    def traffic(self, name: str, rate: float) -> None:
        """One scrape of the gateway after `rate` requests, shared by the weights of the plan; all are answered fast."""
        fleet = fleet_name(self.namespace, name)
        pools = self.status(name).get("plan", {}).get("pools", [])
        self._count(f'envoy_http_downstream_rq_total{{envoy_http_conn_manager_prefix="{fleet}"}}', rate)
        for pool in pools:
            cluster = f'envoy_cluster_name="{fleet}_v{pool["version"]}"'
            count = round(rate * pool["weight"] / 100)
            self._count(f'envoy_cluster_upstream_rq_xx{{{cluster},envoy_response_code_class="2"}}', count)
            for bound in ("5", "25", "100", "250", "1000", "+Inf"):
                self._count(f'envoy_cluster_upstream_rq_time_bucket{{{cluster},le="{bound}"}}', count if bound != "5" else 0)
        mine = {key: value for key, value in self.counts.items() if f'"{fleet}' in key}
        series: dict[str, float | None] = {**mine, "envoy_server_uptime": time.time()}
        page = Snapshot(target="g1", fleet=fleet, role="gateway", time=time.time(), took=0.01, up=True, series=series)
        self.producer.send(TELEMETRY, page)

    def _count(self, key: str, more: float) -> None:
        self.counts[key] = self.counts.get(key, 0.0) + more

    def under(self, name: str, rate: float, holds: Callable[[], Any], what: str, patience: float = 120.0) -> Any:
        """Waits for something with traffic on: a scrape every half second, of half a second's requests."""
        end, last = time.monotonic() + patience, 0.0
        while time.monotonic() < end:
            if time.monotonic() - last >= 0.5:
                self.traffic(name, rate / 2)
                last = time.monotonic()
            if found := holds():
                return found
            time.sleep(0.05)
        raise AssertionError(f"not within {patience:.0f} s: {what}; {self.status(name).get('conditions')}")

    def find(self, name: str, **fields: Any) -> Finding:
        finding = Finding(
            fleet=fleet_name(self.namespace, name),
            id=uuid.uuid4().hex,
            severity="critical",
            onset=time.time(),
            time=time.time(),
            state="firing",
            confidence=0.95,
            summary="seen by a test",
            **fields,
        )
        self.producer.send(FINDINGS, finding)
        return finding

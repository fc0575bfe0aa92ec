"""A fleet in virtual time: pure, seeded, with the real policy and a fleet in memory. No sleep, no process."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from autoscaler.actuators.memory import MemoryActuator
from autoscaler.memory import Inputs, PolicyMemory
from autoscaler.policy import step
from autoscaler.settings import AutoscaleSettings
from trimtab.messages import Decision, Finding, FleetPlan, FleetSpec, Slo, Snapshot

FLEET = "intent"
BOUNDS = (5, 10, 25, 50, 100, 250, 500, 1000)
START = 1_000_000.0


@dataclass
class Behaviour:
    """How a version answers: typical latency in milliseconds, shares of failed and of wrong answers."""

    latency_ms: float = 15.0
    failing: float = 0.0
    wrong: float = 0.07


@dataclass
class Simulation:
    """One second per `tick`: traffic by the plan's weights, the gateway's and the traffic's page, then policy and actuator."""

    seed: int = 1
    rate: float = 20.0
    spec: FleetSpec = field(
        default_factory=lambda: FleetSpec(
            fleet=FLEET,
            model="intent",
            version=1,
            min_replicas=2,
            max_replicas=4,
            capacity_per_replica=30.0,
            slo=Slo(),
            time=START,
        )
    )
    settings: AutoscaleSettings = field(default_factory=AutoscaleSettings)

    def __post_init__(self) -> None:
        self.now = START
        self.rng = random.Random(self.seed)
        self.actuator = MemoryActuator(clock=lambda: self.now)
        self.memory = PolicyMemory()
        self.decisions: list[Decision] = []
        self.plans: list[FleetPlan] = []
        self.behaviour: dict[int, Behaviour] = {}
        self.telemetry = True
        self.labels = True
        self._series: dict[str, float] = {}
        self._app: dict[str, float] = {}
        self.pending_findings: list[Finding] = []
        self.pending_specs: list[FleetSpec] = [self.spec]
        self.failed_requests = 0
        self.requests = 0

    def release(self, version: int, behaviour: Behaviour | None = None) -> None:
        if behaviour:
            self.behaviour[version] = behaviour
        self.spec = msgspec.structs.replace(self.spec, version=version, time=self.now)
        self.pending_specs.append(self.spec)

    def change(self, **fields: object) -> None:
        self.spec = msgspec.structs.replace(self.spec, time=self.now, **fields)
        self.pending_specs.append(self.spec)

    def find(self, **fields: object) -> Finding:
        given: dict[str, object] = {
            "id": f"f{self.rng.random()}",
            "fleet": FLEET,
            "severity": "critical",
            "onset": self.now,
            "time": self.now,
            "state": "firing",
            "confidence": 0.95,
            "summary": "seen",
            **fields,
        }
        finding = msgspec.convert(given, Finding)
        self.pending_findings.append(finding)
        return finding

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Ticks for `seconds` of virtual time, or until the condition holds; returns how long that was."""
        began = self.now
        while self.now - began < seconds:
            self.tick()
            if until is not None and until():
                break
        return self.now - began

    def tick(self) -> None:
        self.now += 1.0
        self._traffic()
        snapshots = self._snapshots() if self.telemetry else []
        for half in (0.0, 0.5):
            self.now += 0.5 if half else 0.0
            self.step(snapshots if not half else [])
        self.now -= 0.5

    def step(self, snapshots: list[Snapshot]) -> None:
        inputs = Inputs(
            state=self.actuator.observe(FLEET), specs=self.pending_specs, snapshots=snapshots, findings=self.pending_findings
        )
        self.pending_specs, self.pending_findings = [], []
        result = step(self.memory, inputs, self.now, self.settings)
        # Every step's memory survives being written down, as a restart would need.
        self.memory = msgspec.json.decode(msgspec.json.encode(result.memory), type=PolicyMemory)
        assert self.memory == result.memory
        self.decisions += result.decisions
        if result.plan is not None:
            self.plans.append(result.plan)
            self.actuator.apply(result.plan)

    def names(self, version: int) -> list[str]:
        state = self.actuator.observe(FLEET)
        return [r.name for pool in state.pools if pool.version == version for r in pool.replicas if r.phase == "ready"]

    def did(self, action: str, **fields: object) -> list[Decision]:
        return [
            d for d in self.decisions if d.action == action and all(getattr(d, name) == value for name, value in fields.items())
        ]

    def _traffic(self) -> None:
        state = self.actuator.observe(FLEET)
        pools = {pool.version: pool for pool in state.pools if pool.weight}
        if not pools:
            return
        count = self._poisson(self.rate)
        self._add(self._series, f'envoy_http_downstream_rq_total{{envoy_http_conn_manager_prefix="{FLEET}"}}', count)
        for _ in range(count):
            version = self.rng.choices(list(pools), [pool.weight for pool in pools.values()])[0]
            self._answer(version, any(replica.phase == "ready" for replica in pools[version].replicas))

    def _answer(self, version: int, served: bool) -> None:
        how = self.behaviour.get(version, Behaviour())
        failed = not served or self.rng.random() < how.failing
        latency = how.latency_ms * self.rng.lognormvariate(0, 0.4)
        cluster = f'envoy_cluster_name="{FLEET}_v{version}"'
        code = "5" if failed else "2"
        self.requests += 1
        self.failed_requests += failed
        self._add(self._series, f'envoy_cluster_upstream_rq_xx{{{cluster},envoy_response_code_class="{code}"}}', 1)
        for bound in (*BOUNDS, "+Inf"):
            below = bound == "+Inf" or latency <= float(bound)
            self._add(self._series, f'envoy_cluster_upstream_rq_time_bucket{{{cluster},le="{bound}"}}', 1 if below else 0)
        outcome = "error" if failed else ("wrong" if self.rng.random() < how.wrong else "ok")
        self._add(self._app, f'trimtab_traffic_requests_total{{outcome="{outcome}",version="{version}"}}', 1)

    def _snapshots(self) -> list[Snapshot]:
        gateway = {**self._series, "envoy_server_uptime": self.now - START}
        pages = [Snapshot(target="gateway", fleet=FLEET, role="gateway", time=self.now, took=0.01, up=True, series=dict(gateway))]
        if self.labels:
            pages.append(
                Snapshot(target="traffic", fleet=FLEET, role="app", time=self.now, took=0.01, up=True, series=dict(self._app))
            )
        return pages

    @staticmethod
    def _add(series: dict[str, float], key: str, value: float) -> None:
        series[key] = series.get(key, 0.0) + value

    def _poisson(self, rate: float) -> int:
        count, left = 0, self.rng.expovariate(rate) if rate > 0 else 2.0
        while left < 1.0:
            count += 1
            left += self.rng.expovariate(rate)
        return count


@pytest.fixture
def simulation() -> Callable[..., Simulation]:
    """Builds simulations: ``simulation(seed=3, rate=20.0)``."""
    return Simulation


@pytest.fixture
def behaviour() -> type[Behaviour]:
    """How a version answers."""
    return Behaviour

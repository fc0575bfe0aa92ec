"""Trimtab's own policy, the real one (`autoscaler.policy.step`), on the model's gateway counters."""

from __future__ import annotations

from autoscaler.memory import Inputs, PolicyMemory
from autoscaler.policy import step
from autoscaler.settings import AutoscaleSettings
from benchmarks.scaling.fleet import Signals
from trimtab.messages import FleetSpec, FleetState, PoolState, ReplicaState, Snapshot

_FLEET = "model"
_EPOCH = 1_000_000.0
_SCRAPE_SECONDS = 1.0


class TrimtabPolicy:
    """Steps the policy each half second and gives it the gateway's page each second, as the stack does. It gets no finding."""

    def __init__(self, start: float, capacity: float, least: int, most: int, settings: AutoscaleSettings) -> None:
        self._settings, self._memory = settings, PolicyMemory()
        self._total, self._scraped = 0, start
        self._spec = FleetSpec(
            fleet=_FLEET,
            model=_FLEET,
            version=1,
            min_replicas=least,
            max_replicas=most,
            capacity_per_replica=capacity,
            time=_EPOCH + start,
        )
        self._specs = [self._spec]

    def look(self, signals: Signals) -> int | None:
        """Replicas that it plans now; None: as before."""
        self._total += signals.arrivals
        now = _EPOCH + signals.time
        snapshots = []
        if signals.time >= self._scraped + _SCRAPE_SECONDS:
            self._scraped = signals.time
            snapshots = [self._page(now)]
        inputs = Inputs(state=self._state(signals, now), specs=self._specs, snapshots=snapshots)
        self._specs = []
        done = step(self._memory, inputs, now, self._settings)
        self._memory = done.memory
        return done.plan.pools[0].replicas if done.plan is not None else None

    def _page(self, now: float) -> Snapshot:
        series: dict[str, float | None] = {
            f'envoy_http_downstream_rq_total{{envoy_http_conn_manager_prefix="{_FLEET}"}}': float(self._total),
            "envoy_server_uptime": now - _EPOCH,
        }
        return Snapshot(target="gateway", fleet=_FLEET, role="gateway", time=now, took=0.0, up=True, series=series)

    @staticmethod
    def _state(signals: Signals, now: float) -> FleetState:
        replicas = [
            ReplicaState(
                name=f"{_FLEET}-{i}",
                version=1,
                phase="ready" if i < signals.ready else "starting",
                since=now,
                in_traffic=i < signals.ready,
            )
            for i in range(signals.replicas)
        ]
        pool = PoolState(version=1, role="stable", weight=100, wanted=signals.replicas, replicas=replicas)
        return FleetState(fleet=_FLEET, time=now, pools=[pool])

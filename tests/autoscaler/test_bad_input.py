"""What is wrong on the bus changes nothing in the policy's eyes."""

from __future__ import annotations

from autoscaler.collect import collect
from autoscaler.memory import Inputs, PolicyMemory
from autoscaler.settings import AutoscaleSettings
from trimtab.messages import FleetState, Snapshot

NOW = 1_700_000_000.0


def page(at: float, arrived: float) -> Snapshot:
    series: dict[str, float | None] = {
        'envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="intent"}': arrived,
        "envoy_server_uptime{}": at,
    }
    return Snapshot(target="gateway", fleet="intent", role="gateway", time=at, took=0.01, up=True, series=series)


def test_a_snapshot_from_the_future_is_not_taken_in_and_what_is_true_is_still_seen_after_it() -> None:
    settings, memory = AutoscaleSettings(), PolicyMemory()

    def read(snapshots: list[Snapshot], now: float, before: PolicyMemory) -> PolicyMemory:
        inputs = Inputs(state=FleetState(fleet="intent", time=now), snapshots=snapshots)
        return collect(before, inputs, now, settings)

    memory = read([page(NOW - 1, 100.0)], NOW, memory)
    assert read([page(NOW + 3600, 1e9)], NOW, memory) == memory
    honest = read([page(NOW, 120.0)], NOW, memory)
    assert read([page(NOW + 3600, 1e9), page(NOW, 120.0)], NOW, memory) == honest
    assert honest.demand.intervals[-1].count == 20.0

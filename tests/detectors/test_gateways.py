"""Several gateways in front of one fleet count as one; when one of them cannot be read, what it counted is unknown."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from detectors.observe import Observation, Observer
from detectors.pipeline import Pipeline
from detectors.ticks import Tick
from trimtab.messages import Snapshot

SHARES = {"gateway-a": 0.25, "gateway-b": 0.75}


def split(snapshots: list[Snapshot]) -> list[Snapshot]:
    """The same fleet behind two gateways: each counted its share of everything. The second is scraped a little later."""
    found = [each for each in snapshots if each.role != "gateway"]
    for each in snapshots:
        if each.role == "gateway":
            for name, share in SHARES.items():
                series = {key: (value or 0.0) * (1.0 if "uptime" in key else share) for key, value in each.series.items()}
                found.append(msgspec.structs.replace(each, target=name, series=series, time=each.time + 0.3 * share))
    return found


class Two:
    """An observer of the fleet behind two gateways, and one of the same fleet behind one."""

    def __init__(self, world: Any, replica: Any) -> None:
        self.world = world([replica("a"), replica("c", version=2, role="canary", failing=0.3)], rate=200, seed=3)
        self.one, self.two = Observer("intent"), Observer("intent")
        self.tick = 0

    def step(self, change: Any = None, silent: tuple[str, ...] = ()) -> tuple[Observation, Observation]:
        self.tick += 1
        snapshots = self.world.step()
        parts = {each.target: each for each in split(snapshots)}
        for name in silent:
            parts.pop(name)
        if change:
            change(parts)
        return (
            self.one.observe(Tick(self.tick, self.tick + 1.0, {each.target: each for each in snapshots}, [])),
            self.two.observe(Tick(self.tick, self.tick + 1.0, parts, list(silent))),
        )


@pytest.fixture
def two(world: Any, replica: Any) -> Two:
    two = Two(world, replica)
    for _ in range(8):  # so that a page that moves is known to move
        two.step()
    return two


def fail(name: str, error: str) -> Any:
    def change(parts: dict[str, Snapshot]) -> None:
        parts[name] = msgspec.structs.replace(parts[name], up=False, error=error, series={})

    return change


def test_two_count_as_one(two: Two) -> None:
    one, both = two.step()
    assert both.arrivals == pytest.approx(one.arrivals) and both.versions == one.versions == [1, 2]
    for version in (1, 2):
        for signal in ("requests", "answered", "errors", "timeouts", "mean_seconds", "p50_seconds", "p99_seconds", "right"):
            assert both.pool(version, signal) == pytest.approx(one.pool(version, signal), nan_ok=True), signal
    assert both.pool(2, "errors") > 0


def test_while_one_does_not_answer_the_number_of_arrivals_is_unknown_but_shares_are_not(two: Two) -> None:
    _, seen = two.step(fail("gateway-b", "timed out: no whole answer within 0.8 s"))
    assert math.isnan(seen.arrivals) and math.isnan(seen.pool(2, "requests"))
    assert 0.1 < seen.pool(2, "errors") / seen.pool(2, "answered") < 0.6 and seen.pool(1, "p50_seconds") > 0
    one, seen = two.step()
    assert math.isfinite(seen.arrivals) and seen.arrivals == pytest.approx(one.arrivals, rel=0.25)


def test_one_that_refuses_connections_has_no_traffic(two: Two) -> None:
    one, seen = two.step(fail("gateway-b", "cannot connect: All connection attempts failed"))
    assert seen.arrivals == pytest.approx(0.25 * one.arrivals)


def test_one_that_is_gone_is_waited_for_and_then_forgotten(two: Two) -> None:
    seen = [two.step(silent=("gateway-b",))[1].arrivals for _ in range(4)]
    assert all(math.isnan(value) for value in seen[:2]) and all(math.isfinite(value) for value in seen[2:])


def test_one_that_restarted_is_unknown_for_a_tick(two: Two) -> None:
    def restart(parts: dict[str, Snapshot]) -> None:
        series = {key: (value or 0.0) / 100 for key, value in parts["gateway-b"].series.items()}
        parts["gateway-b"] = msgspec.structs.replace(parts["gateway-b"], series=series)

    assert math.isnan(two.step(restart)[1].arrivals)


def test_a_new_one_is_unknown_for_a_tick(two: Two) -> None:
    def grow(parts: dict[str, Snapshot]) -> None:
        parts["gateway-c"] = msgspec.structs.replace(parts["gateway-a"], target="gateway-c")

    _, seen = two.step(grow)
    assert math.isnan(seen.arrivals) and math.isnan(seen.pool(1, "requests")) and seen.pool(1, "answered") > 0


def test_a_frozen_one_makes_the_arrivals_unknown(two: Two) -> None:
    kept = {}

    def keep(parts: dict[str, Snapshot]) -> None:
        kept.update(parts["gateway-b"].series)

    def freeze(parts: dict[str, Snapshot]) -> None:
        parts["gateway-b"] = msgspec.structs.replace(parts["gateway-b"], series=dict(kept))

    two.step(keep)
    assert all(math.isnan(two.step(freeze)[1].arrivals) for _ in range(3))


def findings(world: Any, replica: Any, settings: Any, change: Any) -> list[Any]:
    """What is found over 25 ticks behind two gateways; `change(tick, parts)` alters what is scraped."""
    w = world([replica("a"), replica("b"), replica("c")], rate=60, seed=5)
    pipeline = Pipeline("intent", settings)
    found = []
    for tick in range(25):
        parts = {each.target: each for each in split(w.step())}
        change(tick, parts)
        for each in sorted(parts.values(), key=lambda each: each.time):
            found += pipeline.on_snapshot(each, each.time + each.took).findings
        found += pipeline.on_time(w.now + 0.9).findings
    return found


def test_a_replaced_gateway_is_no_gap_in_telemetry(world: Any, replica: Any, settings: Any) -> None:
    def replace(tick: int, parts: dict[str, Snapshot]) -> None:
        if tick >= 12:
            gone = parts.pop("gateway-b")
            parts["gateway-c"] = msgspec.structs.replace(gone, target="gateway-c")

    assert not [each for each in findings(world, replica, settings, replace) if each.kind != "demand_shift"]


def test_a_gateway_that_does_not_answer_is_one(world: Any, replica: Any, settings: Any) -> None:
    def hang(tick: int, parts: dict[str, Snapshot]) -> None:
        if tick >= 12:
            fail("gateway-b", "timed out: no whole answer within 0.8 s")(parts)

    found = findings(world, replica, settings, hang)
    assert {(each.kind, each.target) for each in found} == {("telemetry_gap", "gateway-b")}

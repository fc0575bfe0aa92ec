"""The host's pure core: which actions a state and a plan ask for, who is routed to, and that it always converges."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedded.host.reconcile import (
    DRAIN_LEAST_SECONDS,
    DRAIN_MOST_SECONDS,
    Drain,
    InvalidPlan,
    Quarantine,
    Start,
    Stop,
    check_plan,
    in_traffic,
    reconcile,
    routed,
)
from embedded.host.state import HostState, Replica, fleet_state
from trimtab.messages import FleetPlan, PoolPlan, PoolRole


def plan(*pools: tuple[int, PoolRole, int, int], quarantined: tuple[str, ...] = ()) -> FleetPlan:
    """Pools as (version, role, replicas, weight)."""
    parts = [PoolPlan(version=version, role=role, replicas=replicas, weight=weight) for version, role, replicas, weight in pools]
    return FleetPlan(fleet="intent", decision="d", pools=parts, quarantined=list(quarantined))


def state(*replicas: Replica) -> HostState:
    numbers: dict[int, int] = {}
    for each in replicas:
        numbers[each.version] = max(numbers.get(each.version, 0), int(each.name.rsplit("-", 1)[1]))
    return HostState("intent", {each.name: each for each in replicas}, numbers)


def ready(name: str, since: float = 0.0) -> Replica:
    version = int(name.split("-v")[1].split("-")[0])
    return Replica(name, version, "ready", since, in_traffic=True, served=True)


A, B, C = ready("intent-v1-1", 1), ready("intent-v1-2", 2), ready("intent-v1-3", 3)


def test_starts_what_is_missing_and_nothing_when_all_is_there() -> None:
    assert reconcile(state(A), plan((1, "stable", 3, 100)), 10) == [Start(1), Start(1)]
    assert reconcile(state(A, B, C), plan((1, "stable", 3, 100)), 10) == []


def test_scaling_down_takes_failed_then_starting_then_newest() -> None:
    failed = replace(A, phase="failed", alive=False)
    starting = replace(B, phase="starting")
    assert reconcile(state(failed, starting, C), plan((1, "stable", 1, 100)), 10) == [Stop(failed.name), Stop(starting.name)]
    assert reconcile(state(A, B, C), plan((1, "stable", 1, 100)), 10) == [Drain(C.name), Drain(B.name)]


def test_a_failed_replica_is_replaced_only_once_it_is_quarantined() -> None:
    failed = replace(A, phase="failed", alive=False, in_traffic=False)
    assert reconcile(state(failed, B), plan((1, "stable", 2, 100)), 10) == []
    wanted = plan((1, "stable", 2, 100), quarantined=(failed.name,))
    assert reconcile(state(failed, B), wanted, 10) == [Quarantine(failed.name), Start(1)]


def test_quarantined_does_not_count_is_kept_and_leaves_with_the_plan() -> None:
    sick = replace(A, phase="quarantined", in_traffic=False)
    assert reconcile(state(sick, B, C), plan((1, "stable", 2, 100), quarantined=(sick.name,)), 10) == []
    assert reconcile(state(sick, B, C), plan((1, "stable", 2, 100)), 10) == [Stop(sick.name)]
    assert reconcile(state(sick, ready("intent-v2-1")), plan((2, "stable", 1, 100), quarantined=(sick.name,)), 10) == [
        Stop(sick.name)
    ]


def test_only_two_quarantined_are_kept() -> None:
    sick = [replace(each, phase="quarantined", in_traffic=False) for each in (A, B, C)]
    names = tuple(each.name for each in sick)
    assert reconcile(state(*sick), plan((1, "stable", 0, 0), (2, "canary", 0, 100), quarantined=names), 10) == [Stop(A.name)]


@pytest.mark.parametrize(
    ("out", "in_flight", "stopped"),
    [
        (DRAIN_LEAST_SECONDS - 0.1, 0, False),
        (DRAIN_LEAST_SECONDS, 0, True),
        (DRAIN_LEAST_SECONDS, 3, False),
        (DRAIN_LEAST_SECONDS, None, False),
        (DRAIN_MOST_SECONDS, 3, True),
        (DRAIN_MOST_SECONDS, None, True),
    ],
)
def test_draining_waits_for_requests_but_not_for_ever(out: float, in_flight: float | None, stopped: bool) -> None:
    leaving = replace(A, phase="draining", in_traffic=False, out_since=100.0, in_flight=in_flight)
    actions = reconcile(state(leaving, B), plan((1, "stable", 1, 100)), 100.0 + out)
    assert actions == ([Stop(A.name)] if stopped else [])


def test_the_last_replica_in_traffic_stays_until_another_is_ready() -> None:
    sick = replace(A, phase="quarantined")
    starting = Replica("intent-v1-2", 1)
    wanted = plan((1, "stable", 1, 100), quarantined=(A.name,))
    assert in_traffic(routed(state(sick, starting), wanted)) == {A.name}
    assert reconcile(state(sick, starting), plan((1, "stable", 1, 100)), 10) == []
    (pool,) = routed(state(sick, B), wanted)
    assert pool.listed == (B.name,)


def test_a_new_version_alone_does_not_cut_the_old_one_off_before_it_is_ready() -> None:
    leaving = replace(A, phase="draining")
    wanted = plan((2, "stable", 1, 100))
    pools = routed(state(leaving, Replica("intent-v2-1", 2)), wanted)
    assert [(pool.version, pool.role, pool.weight, pool.listed) for pool in pools] == [
        (2, "stable", 100, ()),
        (1, "previous", 0, (A.name,)),
    ]
    assert in_traffic(pools) == {A.name}
    assert reconcile(state(leaving, Replica("intent-v2-1", 2)), wanted, 1e9) == []
    assert in_traffic(routed(state(leaving, ready("intent-v2-1")), wanted)) == {"intent-v2-1"}


def test_a_dead_replica_is_never_routed_to() -> None:
    dead = replace(A, phase="failed", alive=False)
    assert in_traffic(routed(state(dead), plan((1, "stable", 1, 100)))) == set()


def test_names_and_gpu_slots() -> None:
    now, first = HostState("intent").with_new(1, 5.0)
    now, second = now.with_new(1, 5.0)
    now = now.without(second.name)
    now, third = now.with_new(1, 6.0)
    assert [first.name, second.name, third.name] == ["intent-v1-1", "intent-v1-2", "intent-v1-3"]
    assert [first.gpu, second.gpu, third.gpu] == [0, 1, 1]


def test_the_view_of_others_shows_versions_that_are_leaving() -> None:
    view = fleet_state(state(A, ready("intent-v2-1")), plan((2, "stable", 1, 100)), 9.0)
    assert [(pool.version, pool.role, pool.weight, pool.wanted, len(pool.replicas)) for pool in view.pools] == [
        (1, "previous", 0, 0, 1),
        (2, "stable", 100, 1, 1),
    ]


@pytest.mark.parametrize(
    ("pools", "words"),
    [
        ([], "no pools"),
        ([(1, "stable", 1, 60), (2, "canary", 1, 30)], "add up to 90"),
        ([(1, "stable", -1, 100)], "-1 replicas"),
        ([(0, "stable", 1, 100)], "start at 1"),
        ([(1, "stable", 0, 100)], "no replica"),
        ([(1, "stable", 1, 50), (1, "canary", 1, 50)], "in two pools"),
        ([(1, "stable", 1, 50), (2, "stable", 1, 50)], "Two pools are stable"),
        ([(1, "stable", 1, 150), (2, "canary", 1, -50)], "between 0 and 100"),
        ([(1, "stable", 17, 100)], "more than the 16"),
    ],
)
def test_plans_that_cannot_be_meant(pools: list[tuple[int, PoolRole, int, int]], words: str) -> None:
    with pytest.raises(InvalidPlan, match=words):
        check_plan(plan(*pools), "intent", 16)


def test_a_plan_for_another_fleet() -> None:
    with pytest.raises(InvalidPlan, match="is for fleet 'intent', this is fleet 'other'"):
        check_plan(plan((1, "stable", 1, 100)), "other", 16)


pool_sets = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=3, unique_by=lambda pair: pair[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(pool_sets, st.integers(0, 5)), min_size=1, max_size=5))
def test_any_sequence_of_plans_converges_and_never_leaves_the_fleet_without_traffic(
    plans: list[tuple[list[tuple[int, int]], int]],
) -> None:
    """Plays the executor: every action is done, starting replicas get ready a round later, names are never used twice."""
    now, clock, names, ever_served = HostState("intent"), count(), set[str](), False
    for pools, sick in plans:
        # A canary answers for nobody but itself, so a fleet whose only ready replicas turn canary has no traffic for a while.
        roles: list[PoolRole] = ["stable", "previous", "previous"]
        parts = [(version, roles[i], replicas, 100 if i == 0 else 0) for i, (version, replicas) in enumerate(pools)]
        wanted = plan(*parts, quarantined=tuple(sorted(now.replicas)[:sick]))
        for _ in range(40):
            time = float(next(clock))
            for replica in list(now.replicas.values()):
                if replica.phase == "starting" and replica.since < time:
                    now = now.with_replica(replica.after("ready", time))
            for action in reconcile(now, wanted, time):
                match action:
                    case Start(version):
                        now, new = now.with_new(version, time)
                        assert new.name not in names
                        names.add(new.name)
                    case Drain(name):
                        now = now.with_replica(now.replicas[name].after("drain", time))
                    case Quarantine(name):
                        now = now.with_replica(now.replicas[name].after("quarantine", time))
                    case Stop(name):
                        assert not (now.replicas[name].in_traffic and now.replicas[name].phase in ("draining", "quarantined"))
                        now = now.without(name)
            serving = in_traffic(routed(now, wanted))
            for replica in list(now.replicas.values()):
                inside = replica.name in serving
                out = None if inside else (replica.out_since if replica.out_since is not None else time)
                now = now.with_replica(replace(replica, in_traffic=inside, out_since=out, in_flight=0))
            ever_served = ever_served or bool(serving)
            assert bool(serving) == ever_served
        assert reconcile(now, wanted, float(next(clock))) == []
        for version, _, replicas, _ in parts:
            assert sum(each.version == version and each.phase == "ready" for each in now.replicas.values()) == replicas

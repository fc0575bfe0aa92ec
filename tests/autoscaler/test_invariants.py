"""Whatever findings and telemetry say, some things never happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.messages import FindingKind

KINDS = [kind for kind in get_args(FindingKind) if kind != "telemetry_gap"]
EVENT = st.one_of(
    st.tuples(st.just("find"), st.sampled_from(KINDS), st.integers(0, 6), st.integers(0, 4), st.floats(0, 1)),
    st.tuples(st.just("resolve"), st.integers(0, 9)),
    st.tuples(st.just("rate"), st.floats(0.0, 150.0)),
    st.tuples(st.just("release"), st.integers(1, 4), st.floats(1.0, 900.0), st.floats(0.0, 1.0)),
    st.tuples(st.just("blind"), st.booleans()),
    st.tuples(st.just("gap"), st.sampled_from(["gateway", "traffic", "intent-v1-1", None])),
    st.tuples(st.just("fail"), st.integers(0, 5)),
    st.tuples(st.just("limits"), st.integers(1, 3), st.integers(3, 6)),
    st.tuples(st.just("wait"), st.integers(1, 40)),
)


def play(world: Any, behaviour: Any, event: tuple[Any, ...], found: list[Any]) -> None:
    what, *rest = event
    everyone = [each.name for pool in world.actuator.observe("intent").pools for each in pool.replicas]
    if what == "find":
        kind, replica, version, confidence = rest
        target = everyone[replica % len(everyone)] if replica and everyone else None
        found.append(world.find(kind=kind, target=target, version=version or None, confidence=confidence))
    elif what == "resolve" and found:
        old = found[rest[0] % len(found)]
        world.find(kind=old.kind, id=old.id, target=old.target, version=old.version, onset=old.onset, state="resolved")
    elif what == "rate":
        world.rate = rest[0]
    elif what == "release":
        world.release(rest[0], behaviour(latency_ms=rest[1], failing=rest[2]))
    elif what == "blind":
        world.telemetry = not rest[0]
    elif what == "gap":
        found.append(world.find(kind="telemetry_gap", target=rest[0]))
    elif what == "fail" and everyone:
        world.actuator.fail("intent", everyone[rest[0] % len(everyone)], "killed")
    elif what == "limits":
        world.change(min_replicas=rest[0], max_replicas=rest[1])
    elif what == "wait":
        world.run(rest[0])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), events=st.lists(EVENT, max_size=12))
def test_no_history_breaks_the_invariants(
    simulation: Callable[..., Any], behaviour: Any, seed: int, events: list[tuple[Any, ...]]
) -> None:
    world = simulation(seed=seed)
    world.run(5)
    found: list[Any] = []
    for event in events:
        before, said = world.memory, len(world.decisions)
        play(world, behaviour, event, found)
        world.run(2)
        check(world)
        if event[0] == "gap" and before.plan is not None:
            downs = [d for d in world.decisions[said:] if d.action == "scale" and d.to["replicas"] < d.from_["replicas"]]
            assert not [d for d in downs if world.memory.rollout.candidate is None and world.memory.rollout.previous is None]
    ids = [decision.id for decision in world.decisions]
    assert len(ids) == len(set(ids)), "an act or a refusal was said twice"


def check(world: Any) -> None:
    spec, plan = world.spec, world.memory.plan
    assert sum(pool.weight for pool in plan.pools) == 100
    assert len({pool.version for pool in plan.pools}) == len(plan.pools)
    (stable,) = [pool for pool in plan.pools if pool.role == "stable"]
    assert 1 <= stable.replicas <= spec.max_replicas
    alone = len(plan.pools) == 1
    assert sum(pool.replicas for pool in plan.pools) <= spec.max_replicas + (0 if alone else -(-spec.max_replicas // 2))
    assert not alone or stable.replicas >= spec.min_replicas
    recent = [item for item in world.memory.quarantined if world.now - item.since < world.settings.together_seconds]
    per_pool = [sum(item.version == pool.version for item in recent) for pool in plan.pools]
    assert max(per_pool) <= 2  # a third of six at most
    assert len(world.memory.quarantine_times) <= world.settings.quarantines_per_window
    for decision in world.decisions:
        assert decision.reason and (decision.outcome == "refused") == (decision.action == "hold")

"""The suite that every actuator passes. A test module inherits it and says how to make one:

class TestMine(ActuatorContract):
    @pytest.fixture
    def subject(self) -> Iterator[Subject]:
        yield Subject(actuator, fleet="intent", wait=time.sleep, patience=60.0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from autoscaler.actuators.base import Actuator
from trimtab.errors import SettingsError
from trimtab.messages import FleetPlan, FleetState, PoolPlan, PoolRole, ReplicaState


@dataclass
class Subject:
    """An actuator under test: its fleet (empty at first), how time passes there, and how many seconds a change may take."""

    actuator: Actuator
    fleet: str
    wait: Callable[[float], None]
    patience: float = 60.0
    versions: tuple[int, int] = (1, 2)

    def plan(self, *pools: tuple[int, PoolRole, int, int], out: tuple[str, ...] = ()) -> FleetPlan:
        """A plan from (version, role, replicas, weight)."""
        return FleetPlan(
            fleet=self.fleet,
            decision="test",
            pools=[PoolPlan(version=v, role=role, replicas=count, weight=weight) for v, role, count, weight in pools],
            quarantined=list(out),
        )

    def ready(self, state: FleetState, version: int) -> list[ReplicaState]:
        """The ready replicas of a version."""
        return [each for pool in state.pools if pool.version == version for each in pool.replicas if each.phase == "ready"]

    def until(self, holds: Callable[[FleetState], bool], what: str) -> FleetState:
        """Waits until the observed state is as said; fails after `patience` seconds of waiting."""
        for _ in range(int(self.patience / 0.25)):
            state = self.actuator.observe(self.fleet)
            if holds(state):
                return state
            self.wait(0.25)
        raise AssertionError(f"not within {self.patience:.0f} s: {what}; last: {state}")


class ActuatorContract:
    """What every actuator does."""

    @pytest.fixture
    def subject(self) -> Iterator[Subject]:
        """To be given by the inheriting class."""
        raise NotImplementedError

    def test_starts_what_is_planned_and_gives_it_traffic(self, subject: Subject) -> None:
        first, _ = subject.versions
        subject.actuator.apply(subject.plan((first, "stable", 2, 100)))
        state = subject.until(lambda s: len(subject.ready(s, first)) == 2, "two replicas ready")
        (pool,) = [pool for pool in state.pools if pool.wanted]
        assert (pool.version, pool.role, pool.weight, pool.wanted) == (first, "stable", 100, 2)
        subject.until(lambda s: all(each.in_traffic for each in subject.ready(s, first)), "both in traffic")
        assert len({each.name for each in pool.replicas}) == 2

    def test_applying_twice_changes_nothing(self, subject: Subject) -> None:
        first, _ = subject.versions
        plan = subject.plan((first, "stable", 1, 100))
        subject.actuator.apply(plan)
        before = subject.until(lambda s: len(subject.ready(s, first)) == 1, "one replica ready")
        subject.actuator.apply(plan)
        subject.wait(0.5)
        after = subject.actuator.observe(subject.fleet)
        assert subject.ready(after, first)[0].name == subject.ready(before, first)[0].name
        assert [len(pool.replicas) for pool in after.pools] == [1]

    def test_scales_up_and_down(self, subject: Subject) -> None:
        first, _ = subject.versions
        for count in (1, 2, 1):
            subject.actuator.apply(subject.plan((first, "stable", count, 100)))
            self._settled(subject, first, count)

    def _settled(self, subject: Subject, version: int, count: int) -> None:
        subject.until(
            lambda state: len(subject.ready(state, version)) == count == sum(len(pool.replicas) for pool in state.pools),
            f"{count} replicas and no other",
        )

    def test_moves_weights_between_versions_and_drains_what_is_not_planned(self, subject: Subject) -> None:
        first, second = subject.versions
        subject.actuator.apply(subject.plan((first, "stable", 1, 100), (second, "canary", 1, 0)))
        subject.until(lambda s: bool(subject.ready(s, first)) and bool(subject.ready(s, second)), "both ready")
        subject.actuator.apply(subject.plan((first, "stable", 1, 80), (second, "canary", 1, 20)))
        state = subject.until(
            lambda s: all(r.in_traffic for v in (first, second) for r in subject.ready(s, v)), "both in traffic"
        )
        assert {pool.version: pool.weight for pool in state.pools} == {first: 80, second: 20}
        subject.actuator.apply(subject.plan((second, "stable", 1, 100)))
        state = subject.until(lambda s: [pool.version for pool in s.pools if pool.replicas] == [second], "the first is gone")
        assert subject.ready(state, second)[0].in_traffic

    def test_quarantine_takes_one_out_and_replaces_it(self, subject: Subject) -> None:
        first, _ = subject.versions
        subject.actuator.apply(subject.plan((first, "stable", 2, 100)))
        state = subject.until(lambda s: len(subject.ready(s, first)) == 2, "two ready")
        sick = subject.ready(state, first)[0].name
        subject.actuator.apply(subject.plan((first, "stable", 2, 100), out=(sick,)))
        state = subject.until(lambda s: len(subject.ready(s, first)) == 2, "two healthy again")
        assert sick not in [each.name for each in subject.ready(state, first)]
        out = [each for pool in state.pools for each in pool.replicas if each.name == sick]
        assert all(each.phase == "quarantined" and not each.in_traffic for each in out)

    def test_a_bad_plan_is_refused_in_words_and_changes_nothing(self, subject: Subject) -> None:
        first, second = subject.versions
        subject.actuator.apply(subject.plan((first, "stable", 1, 100)))
        for plan in (
            subject.plan((first, "stable", 1, 90)),
            subject.plan((first, "stable", 1, 50), (first, "canary", 1, 50)),
            subject.plan((first, "stable", 1, 50), (second, "canary", 0, 50)),
            subject.plan((first, "stable", -1, 100)),
        ):
            with pytest.raises(SettingsError) as refusal:
                subject.actuator.apply(plan)
            assert len(str(refusal.value)) > 20
        state = subject.actuator.observe(subject.fleet)
        assert {pool.version: (pool.wanted, pool.weight) for pool in state.pools} == {first: (1, 100)}

"""The table of transitions, whole: every phase against every event."""

from __future__ import annotations

import pytest

from autoscaler.rollout import TABLE, Context, Event, Phase, Rollout, advance, weights

CONTEXT = Context(now=50.0, version=3, spec_time=40.0)
ROLLOUTS = {
    Phase.IDLE: Rollout(stable=1),
    Phase.STARTING: Rollout(phase=Phase.STARTING, stable=1, candidate=2, released=10.0, started=11.0),
    Phase.CANARY: Rollout(phase=Phase.CANARY, stable=1, candidate=2, released=10.0, started=11.0),
    Phase.GUARD: Rollout(phase=Phase.GUARD, stable=2, previous=1, released=10.0, started=11.0),
}
BAD = {Event.HARM, Event.FINDING, Event.REPLICA_FAULT, Event.CRASHED}
EXPECTED: dict[tuple[Phase, Event], tuple[Phase, str, int | None, int | None, int | None]] = {
    # (phase, event): (next phase, action, stable, candidate, previous)
    (Phase.IDLE, Event.RELEASED): (Phase.STARTING, "shift_traffic", 1, 3, None),
    (Phase.STARTING, Event.READY): (Phase.CANARY, "shift_traffic", 1, 2, None),
    (Phase.STARTING, Event.LATE): (Phase.IDLE, "rollback", 1, None, None),
    (Phase.STARTING, Event.WITHDRAWN): (Phase.IDLE, "rollback", 1, None, None),
    (Phase.STARTING, Event.SUPERSEDED): (Phase.STARTING, "shift_traffic", 1, 3, None),
    (Phase.CANARY, Event.STEP): (Phase.CANARY, "shift_traffic", 1, 2, None),
    (Phase.CANARY, Event.FINE): (Phase.GUARD, "promote", 2, None, 1),
    (Phase.CANARY, Event.WITHDRAWN): (Phase.IDLE, "rollback", 1, None, None),
    (Phase.CANARY, Event.SUPERSEDED): (Phase.STARTING, "shift_traffic", 1, 3, None),
    (Phase.GUARD, Event.GUARD_OVER): (Phase.IDLE, "shift_traffic", 2, None, None),
    (Phase.GUARD, Event.SUPERSEDED): (Phase.STARTING, "shift_traffic", 2, 3, None),
    (Phase.GUARD, Event.WITHDRAWN): (Phase.IDLE, "rollback", 1, None, None),
    **{(phase, event): (Phase.IDLE, "rollback", 1, None, None) for phase in Phase if phase is not Phase.IDLE for event in BAD},
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_every_phase_against_every_event(phase: Phase, event: Event) -> None:
    before = ROLLOUTS[phase]
    if (phase, event) not in EXPECTED:
        assert (phase, event) not in TABLE
        with pytest.raises(KeyError):
            advance(before, event, CONTEXT)
        return
    to, action, stable, candidate, previous = EXPECTED[phase, event]
    after, transition = advance(before, event, CONTEXT)
    assert (after.phase, transition.action) == (to, action)
    assert (after.stable, after.candidate, after.previous) == (stable, candidate, previous)
    assert after.since == CONTEXT.now
    rejected = {2: 10.0} if action == "rollback" and event is not Event.WITHDRAWN else {}
    assert after.rolled_back == rejected
    assert sum(weights(after, [20, 50], 10).values()) == 100


def test_the_table_is_what_is_expected_and_nothing_else() -> None:
    assert set(TABLE) == set(EXPECTED)


def test_weights_follow_the_steps() -> None:
    canary = ROLLOUTS[Phase.CANARY]
    assert weights(canary, [20, 50], 10) == {1: 80, 2: 20}
    after, _ = advance(canary, Event.STEP, CONTEXT)
    assert weights(after, [20, 50], 10) == {1: 50, 2: 50}
    assert weights(ROLLOUTS[Phase.GUARD], [20, 50], 10) == {2: 90, 1: 10}
    assert weights(ROLLOUTS[Phase.STARTING], [20, 50], 10) == {1: 100, 2: 0}
    assert weights(Rollout(), [20, 50], 10) == {}

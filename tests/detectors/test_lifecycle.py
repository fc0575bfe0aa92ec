"""The table of transitions, whole, and what it sends."""

from __future__ import annotations

from typing import get_args

from detectors.lifecycle import TRANSITIONS, Condition, Event, Lifecycles, State
from trimtab.messages import FindingKind

NONE: frozenset[FindingKind] = frozenset()


def slow(need: int = 2) -> Condition:
    return Condition("replica_fault", "a", "warning", 0.9, "a is slow", [], target="a", need=need)


def test_every_state_that_lasts_answers_every_event() -> None:
    lasting = [s for s in get_args(State) if s != "resolved"]
    assert set(TRANSITIONS) == {(s, e) for s in lasting for e in get_args(Event)}


def test_one_finding_with_one_id_from_onset_to_end() -> None:
    lives = Lifecycles("f", 1.0, repeat=5.0, clear_ticks=3)
    sent = [f for t in range(1, 13) for f in lives.step(t, t + 1.0, [slow()], NONE)]
    assert [f.time for f in sent] == [3.0, 8.0, 13.0] and {f.onset for f in sent} == {1.0}
    sent += [f for t in range(13, 20) for f in lives.step(t, t + 1.0, [], NONE)]
    assert [f.state for f in sent][-1] == "resolved" and len({f.id for f in sent}) == 1
    assert [f.state for f in sent].count("resolved") == 1 and lives.dump() == {}


def test_a_flicker_is_no_finding_and_a_pause_is_no_end() -> None:
    lives = Lifecycles("f", 1.0, repeat=100.0, clear_ticks=3)
    assert [f for t in range(10) for f in lives.step(t, t, [slow()] if t % 2 else [], NONE)] == []
    lives.step(20, 20.0, [slow(1)], NONE)
    assert [f for t in range(21, 30) for f in lives.step(t, t, [slow(1)] if t % 3 == 0 else [], NONE)] == []


def test_what_is_held_neither_arises_nor_ends() -> None:
    lives = Lifecycles("f", 1.0, repeat=100.0, clear_ticks=2)
    held: frozenset[FindingKind] = frozenset({"replica_fault"})
    assert lives.step(1, 1.0, [slow(1)], held) == []
    (fired,) = lives.step(2, 2.0, [slow(1)], NONE)
    assert [f for t in range(3, 20) for f in lives.step(t, t, [], held)] == []
    assert [f.id for t in range(20, 23) for f in lives.step(t, t, [], NONE)] == [fired.id]


def test_the_same_onset_has_the_same_id() -> None:
    ids = {Lifecycles("f", 1.0, 5.0, 3).step(7, 8.0, [slow(1)], NONE)[0].id for _ in range(2)}
    other = Lifecycles("f", 1.0, 5.0, 3).step(8, 9.0, [slow(1)], NONE)[0].id
    assert len(ids) == 1 and other not in ids

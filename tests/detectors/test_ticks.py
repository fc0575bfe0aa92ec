"""Ticks under late, duplicate, early, missing and returning targets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from detectors.ticks import Tick, Ticker
from trimtab.messages import Snapshot


def snap(target: str, time: float, up: bool = True) -> Snapshot:
    return Snapshot(target=target, fleet="f", role="triton", time=time, took=0.01, up=up, series={"x": 1.0} if up else {})


def ticker() -> Ticker:
    return Ticker(interval=1.0, grace=0.6, future=5.0, forget_ticks=5, restart_grace=10.0)


def warm(t: Ticker, until: int = 3) -> list[Tick]:
    done = []
    for k in range(until):
        for name in "ab":
            done += t.offer(snap(name, k + 0.1), k + 0.1)
    return done + t.advance(until - 0.3)


def test_a_tick_closes_when_all_have_reported() -> None:
    t = ticker()
    warm(t)
    assert t.offer(snap("a", 3.1), 3.1) == []
    (done,) = t.offer(snap("b", 3.2), 3.2)
    assert done.id == 3 and set(done.snapshots) == {"a", "b"} and done.silent == []


def test_a_silent_target_holds_a_tick_for_the_grace_only() -> None:
    t = ticker()
    warm(t)
    t.offer(snap("a", 3.1), 3.1)
    assert t.advance(4.5) == []
    (done,) = t.advance(4.6)
    assert done.silent == ["b"] and set(done.snapshots) == {"a"}


def test_a_target_that_is_gone_is_forgotten() -> None:
    t = ticker()
    warm(t)
    for k in range(3, 12):
        t.offer(snap("a", k + 0.1), k + 0.1)
        t.advance(k + 1.7)
    assert set(t.seen) == {"a"}
    assert len(t.offer(snap("a", 12.1), 12.1)) == 1  # nobody waits for it any more


def test_nobody_is_forgotten_in_total_silence() -> None:
    t = ticker()
    warm(t)
    done = [tick for k in range(4, 40) for tick in t.advance(k + 0.7)]
    assert set(t.seen) == {"a", "b"}
    assert len(done) >= 10 and all(set(tick.silent) == {"a", "b"} for tick in done)
    assert [tick.id for tick in done] == sorted({tick.id for tick in done})


def test_who_comes_back_a_tick_after_the_others_is_not_forgotten() -> None:
    t = ticker()
    warm(t)
    for k in range(4, 20):
        t.advance(k + 0.7)
    t.offer(snap("a", 20.9), 20.9)
    done = [*t.advance(22.7), *t.offer(snap("b", 21.1), 22.8)]
    assert next(tick for tick in done if tick.id == 20).silent == ["b"]
    assert set(t.seen) == {"a", "b"}


def test_the_future_moves_nothing_and_is_counted() -> None:
    t = ticker()
    warm(t)
    before = t.closed
    assert t.offer(snap("a", 900.0), 3.0) == [] and t.offer(snap("z", float("inf")), 3.0) == []
    assert t.offer(snap("a", float("nan")), 3.0) == []
    assert t.closed == before and t.rejected_future == 3 and "z" not in t.seen


def test_late_and_duplicate_ones_are_counted_and_change_nothing() -> None:
    t = ticker()
    warm(t)
    assert t.offer(snap("a", 0.5), 3.0) == [] and t.late == 1
    t.offer(snap("a", 3.1), 3.1)
    t.offer(snap("a", 3.1, up=False), 3.2)
    assert t.duplicate == 1
    (done,) = t.offer(snap("b", 3.3), 3.3)
    assert done.snapshots["a"].up


def test_a_late_failure_counts_in_the_next_open_tick_unless_the_target_answers_there() -> None:
    t = ticker()
    warm(t)
    t.offer(snap("a", 3.1), 3.1)
    (done,) = t.advance(4.6)
    assert done.silent == ["b"]
    assert t.offer(snap("b", 3.9, up=False), 4.7) == [] and t.late == 1
    (done,) = t.offer(snap("a", 4.1), 4.75) + t.advance(5.6)
    assert done.id == 4 and done.silent == [] and not done.snapshots["b"].up
    t.offer(snap("b", 4.9, up=False), 5.7)
    t.offer(snap("b", 5.8), 5.8)
    (done,) = t.offer(snap("a", 5.9), 5.9)
    assert done.id == 5 and done.snapshots["b"].up and t.duplicate == 0


def test_a_hole_beside_a_target_that_is_gone_holds_up_nothing() -> None:
    """The collector paused for two ticks, and one target never came back: the others' ticks go on all the same."""
    t = ticker()
    warm(t)
    done = []
    for k in range(5, 15):
        for step in range(5):  # something is heard all the time
            done += t.offer(snap("a", k + 0.1 + step / 10), k + 0.1 + step / 10)
            done += t.advance(k + 0.15 + step / 10)
    assert [tick.id for tick in done] == list(range(3, 3 + len(done))) and done[-1].id >= 12
    assert set(t.seen) == {"a"}


def test_a_failure_of_long_ago_is_no_news() -> None:
    t = ticker()
    warm(t, 10)
    t.offer(snap("b", 3.0, up=False), 10.2)
    assert t.late == 1 and t.open == {}


def test_a_backlog_is_taken_in_order_although_its_time_is_long_past() -> None:
    t = ticker()
    warm(t)
    done = [tick for k in range(3, 60) for name in "ab" for tick in t.offer(snap(name, k + 0.1), 500.0 + 0.001 * k)]
    assert [tick.id for tick in done] == list(range(3, 60)) and all(len(tick.snapshots) == 2 for tick in done)
    assert t.late == 0


def test_after_a_restart_the_backlog_comes_before_silence_counts() -> None:
    t = ticker()
    warm(t)
    again = ticker()
    again.restore({**t.dump(), "open": []})
    assert again.advance(50.0) == [] and again.advance(55.0) == []
    done = [tick for k in range(3, 50) for name in "ab" for tick in again.offer(snap(name, k + 0.1), 55.1)]
    assert [tick.id for tick in done] == list(range(3, 50))


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 30, allow_nan=False), st.floats(-8, 8)),
        max_size=60,
    )
)
def test_any_order_gives_ticks_in_order_once_each_with_nothing_from_outside(events: list[tuple[str, float, float]]) -> None:
    t, now, done = ticker(), 0.0, []
    for target, step, skew in events:
        now += step / 10
        done += t.offer(snap(target, max(0.0, now + skew)), now)
    done += t.advance(now + 20)
    ids = [tick.id for tick in done]
    assert ids == sorted(set(ids))
    for tick in done:
        assert all(tick.id <= s.time < tick.id + 1 for s in tick.snapshots.values())
        assert not set(tick.silent) & set(tick.snapshots)
    taken = sum(len(tick.snapshots) for tick in done)
    assert taken + t.late + t.rejected_future + t.duplicate + sum(map(len, t.open.values())) == len(events)

"""The way of a new version, as a table: what happens in which phase, where it leads, and what act it is.

    idle -> starting -> canary (steps of weight) -> guard (promoted, the previous version stays warm) -> idle

Anything that is not in `TABLE` cannot happen.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import msgspec

from autoscaler.canary import CanaryMemory
from trimtab.messages import Action


class Phase(StrEnum):
    """Where a rollout stands."""

    IDLE = "idle"
    STARTING = "starting"
    CANARY = "canary"
    GUARD = "guard"


class Event(StrEnum):
    """What can happen to a rollout."""

    RELEASED = "released"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"
    READY = "ready"
    LATE = "late"
    CRASHED = "crashed"
    REPLICA_FAULT = "replica_fault"
    FINDING = "finding"
    HARM = "harm"
    STEP = "step"
    FINE = "fine"
    GUARD_OVER = "guard_over"


class Rollout(msgspec.Struct, frozen=True):
    """The versions of a fleet and where a rollout stands. During the guard, `stable` is the promoted version."""

    phase: Phase = Phase.IDLE
    since: float = 0.0
    stable: int | None = None
    candidate: int | None = None
    previous: int | None = None
    released: float | None = None
    """Time of the spec that released the candidate."""
    started: float = 0.0
    step: int = 0
    canary: CanaryMemory | None = None
    rolled_back: dict[int, float] = {}
    """Version -> time of the spec that was rolled back: only a newer spec releases it again."""

    @property
    def judged(self) -> int | None:
        """The version under comparison: the candidate, or during the guard the one that was promoted."""
        return self.stable if self.phase is Phase.GUARD else self.candidate


class Context(NamedTuple):
    """What the effects of a transition need."""

    now: float
    version: int
    spec_time: float


Effect = Callable[[Rollout, Context], Rollout]


class Transition(NamedTuple):
    """Where an event leads, which action that is, what it does to the rollout, and what it is in words."""

    to: Phase
    action: Action
    effect: Effect
    words: str


def _begin(rollout: Rollout, context: Context) -> Rollout:
    return msgspec.structs.replace(
        rollout,
        candidate=context.version,
        previous=None,
        released=context.spec_time,
        started=context.now,
        step=0,
        canary=None,
    )


def _next_step(rollout: Rollout, context: Context) -> Rollout:
    return msgspec.structs.replace(rollout, step=rollout.step + 1)


def _stay(rollout: Rollout, context: Context) -> Rollout:
    return rollout


def _drop(rollout: Rollout, context: Context) -> Rollout:
    return msgspec.structs.replace(rollout, candidate=None, canary=None, step=0)


def _reject(rollout: Rollout, context: Context) -> Rollout:
    version = rollout.judged
    # A spec that said the same version again while it was on trial was answered as well.
    released = context.spec_time if context.version == version else rollout.released or context.spec_time
    marked = rollout.rolled_back | ({version: released} if version is not None else {})
    return _drop(msgspec.structs.replace(rollout, rolled_back=marked), context)


def _promote(rollout: Rollout, context: Context) -> Rollout:
    return msgspec.structs.replace(rollout, stable=rollout.candidate, previous=rollout.stable, candidate=None, step=0)


def _return(rollout: Rollout, context: Context) -> Rollout:
    return msgspec.structs.replace(_reject(rollout, context), stable=rollout.previous, previous=None)


def _return_by_owner(rollout: Rollout, context: Context) -> Rollout:
    return msgspec.structs.replace(_drop(rollout, context), stable=rollout.previous, previous=None)


def _finish(rollout: Rollout, context: Context) -> Rollout:
    return msgspec.structs.replace(rollout, previous=None, canary=None, released=None)


_BAD = (Event.HARM, Event.FINDING, Event.REPLICA_FAULT, Event.CRASHED)

TABLE: dict[tuple[Phase, Event], Transition] = {
    (Phase.IDLE, Event.RELEASED): Transition(Phase.STARTING, "shift_traffic", _begin, "a canary starts"),
    (Phase.STARTING, Event.READY): Transition(Phase.CANARY, "shift_traffic", _stay, "the canary gets its first traffic"),
    (Phase.STARTING, Event.LATE): Transition(Phase.IDLE, "rollback", _reject, "the canary was not ready in time"),
    (Phase.CANARY, Event.STEP): Transition(Phase.CANARY, "shift_traffic", _next_step, "the canary gets more traffic"),
    (Phase.CANARY, Event.FINE): Transition(Phase.GUARD, "promote", _promote, "promoted; the previous version stays warm"),
    (Phase.GUARD, Event.GUARD_OVER): Transition(Phase.IDLE, "shift_traffic", _finish, "the previous version is drained"),
    (Phase.GUARD, Event.SUPERSEDED): Transition(
        Phase.STARTING, "shift_traffic", _begin, "a newer release ends the guard; its canary starts"
    ),
    (Phase.GUARD, Event.WITHDRAWN): Transition(
        Phase.IDLE, "rollback", _return_by_owner, "back to the previous version, as asked"
    ),
    **{(Phase.GUARD, event): Transition(Phase.IDLE, "rollback", _return, "back to the previous version") for event in _BAD},
    **{
        (phase, event): Transition(Phase.IDLE, "rollback", _reject, "the canary is drained")
        for phase in (Phase.STARTING, Phase.CANARY)
        for event in _BAD
    },
    **{
        (phase, Event.WITHDRAWN): Transition(Phase.IDLE, "rollback", _drop, "its release was withdrawn")
        for phase in (Phase.STARTING, Phase.CANARY)
    },
    **{
        (phase, Event.SUPERSEDED): Transition(Phase.STARTING, "shift_traffic", _begin, "a newer release takes its place")
        for phase in (Phase.STARTING, Phase.CANARY)
    },
}


def advance(rollout: Rollout, event: Event, context: Context) -> tuple[Rollout, Transition]:
    """The rollout after an event. Raises `KeyError` for an event that the phase does not know."""
    transition = TABLE[rollout.phase, event]
    moved = transition.effect(rollout, context)
    return msgspec.structs.replace(moved, phase=transition.to, since=context.now), transition


def weights(rollout: Rollout, steps: list[int], guard_weight: int) -> dict[int, int]:
    """Version -> share of traffic in percent; they add up to 100. Empty while no version serves."""
    if rollout.stable is None:
        return {}
    if rollout.phase is Phase.GUARD and rollout.previous is not None:
        return {rollout.stable: 100 - guard_weight, rollout.previous: guard_weight}
    if rollout.candidate is not None:
        share = steps[min(rollout.step, len(steps) - 1)] if rollout.phase is Phase.CANARY else 0
        return {rollout.stable: 100 - share, rollout.candidate: share}
    return {rollout.stable: 100}

"""Replays recorded topics through the policy: the same records give the same decisions, or the differences are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from autoscaler.memory import PolicyMemory
from autoscaler.policy import step
from autoscaler.reading import TOPICS, fresh, inputs, place
from autoscaler.settings import AutoscaleSettings
from trimtab.bus import Record
from trimtab.messages import Decision, FleetState

_NOT_COMPARED = ("time", "took", "outcome", "reason")
"""When and how it ended depends on the machine and the actuator. The reason of a failed act has the failure added."""


class Difference(NamedTuple):
    """A decision that the recording and the replay do not share; None on the side that lacks it."""

    recorded: Decision | None
    replayed: Decision | None

    @property
    def words(self) -> str:
        """For a person."""
        decision = self.recorded or self.replayed
        assert decision is not None
        what = f"{decision.action} {decision.version if decision.version is not None else ''}".strip()
        head = f"{decision.time:.3f} {decision.id} {what} ({decision.reason})"
        if self.recorded is None:
            return f"only in the replay:    {head}"
        if self.replayed is None:
            return f"only in the recording: {head}"
        old, new = _compared(self.recorded), _compared(self.replayed)
        changed = [f"{name}: {old[name]} -> {new[name]}" for name in old if old[name] != new[name]]
        return f"differs:               {head}: {'; '.join(changed)}"


class Report(NamedTuple):
    """How a replay went."""

    steps: int
    decisions: list[Decision]
    differences: list[Difference]


def replay(records: Sequence[Record], fleet: str, settings: AutoscaleSettings, memory: PolicyMemory | None = None) -> Report:
    """Takes every recorded step of a fleet again. `memory`: what was remembered before the recording, default nothing."""
    memory = memory or PolicyMemory()
    consumed: dict[str, int] = {}
    waiting = fresh([record for record in records if record.topic in TOPICS], {})
    states = [record.message for record in records if isinstance(record.message, FleetState) and record.message.fleet == fleet]
    unique = {(state.time, tuple(sorted(state.consumed.items()))): state for state in states}
    decisions: list[Decision] = []
    for state in sorted(unique.values(), key=lambda each: each.time):
        batch = [record for record in waiting if record.offset < state.consumed.get(place(record), 0)]
        waiting = [record for record in waiting if record.offset >= state.consumed.get(place(record), 0)] if batch else waiting
        result = step(memory, inputs(state, fresh(batch, consumed)), state.time, settings)
        memory, consumed = result.memory, {**consumed, **state.consumed}
        decisions += result.decisions
    recorded = [
        record.message
        for record in records
        if isinstance(record.message, Decision) and record.message.fleet == fleet and record.message.because != ["actuator_away"]
    ]
    return Report(len(unique), decisions, differences(recorded, decisions))


def differences(recorded: Sequence[Decision], replayed: Sequence[Decision]) -> list[Difference]:
    """What differs, by time. A decision that was published more than once, as after a failure, counts once."""
    old, new = ({decision.id: decision for decision in side} for side in (recorded, replayed))
    found = [Difference(old.get(key), new.get(key)) for key in {**old, **new}]
    different = [item for item in found if item.recorded is None or item.replayed is None or not _same(*item)]
    return sorted(different, key=lambda item: (item.recorded or item.replayed).time)  # type: ignore[union-attr]


def _same(recorded: Decision | None, replayed: Decision | None) -> bool:
    if recorded is None or replayed is None:
        return recorded is replayed
    refused = (recorded.outcome == "refused") == (replayed.outcome == "refused")
    return refused and _compared(recorded) == _compared(replayed)


def _compared(decision: Decision) -> dict[str, object]:
    plain: dict[str, object] = msgspec.json.decode(msgspec.json.encode(decision))
    return {name: value for name, value in plain.items() if name not in _NOT_COMPARED}

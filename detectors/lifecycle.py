"""The life of a finding: a table of transitions, and what is sent at each."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from trimtab.messages import Evidence, Finding, FindingKind, FindingState, PoolRole, Severity, stable_id

State = Literal["quiet", "suspected", "firing", "clearing", "resolved"]
Event = Literal["seen", "confirmed", "absent", "expired"]
Send = Literal["nothing", "firing", "repeat", "resolved"]

# (state, event) -> (next state, what is sent). "confirmed": seen for as many ticks as its rule asks; "expired": absent for as
# many ticks as clearing takes; "repeat": sent only when the last message is old enough.
TRANSITIONS: dict[tuple[State, Event], tuple[State, Send]] = {
    ("quiet", "seen"): ("suspected", "nothing"),
    ("quiet", "confirmed"): ("firing", "firing"),
    ("quiet", "absent"): ("quiet", "nothing"),
    ("quiet", "expired"): ("quiet", "nothing"),
    ("suspected", "seen"): ("suspected", "nothing"),
    ("suspected", "confirmed"): ("firing", "firing"),
    ("suspected", "absent"): ("quiet", "nothing"),
    ("suspected", "expired"): ("quiet", "nothing"),
    ("firing", "seen"): ("firing", "repeat"),
    ("firing", "confirmed"): ("firing", "repeat"),
    ("firing", "absent"): ("clearing", "repeat"),
    ("firing", "expired"): ("resolved", "resolved"),
    ("clearing", "seen"): ("firing", "repeat"),
    ("clearing", "confirmed"): ("firing", "repeat"),
    ("clearing", "absent"): ("clearing", "repeat"),
    ("clearing", "expired"): ("resolved", "resolved"),
}


class Condition(NamedTuple):
    """What a rule sees in one tick. `need`: ticks in a row before it fires; `ago`: ticks since it began (0: now)."""

    kind: FindingKind
    subject: str
    severity: Severity
    confidence: float
    summary: str
    evidence: list[Evidence]
    target: str | None = None
    pool: PoolRole | None = None
    version: int | None = None
    need: int = 1
    ago: int = 0


class _Life(msgspec.Struct):
    state: State
    onset_tick: int
    condition: Condition
    present: int = 0
    absent: int = 0
    sent: float = 0.0


class Lifecycles:
    """All findings of one fleet that are not quiet."""

    def __init__(self, fleet: str, interval: float, repeat: float, clear_ticks: int) -> None:
        self._fleet, self._interval, self._repeat, self._clear = fleet, interval, repeat, clear_ticks
        self._lives: dict[str, _Life] = {}

    def step(self, tick: int, time: float, conditions: list[Condition], held: frozenset[FindingKind]) -> list[Finding]:
        """One tick: the messages to send. Kinds in `held` stay as they are: nothing arises and nothing clears."""
        found: list[Finding] = []
        present = {f"{c.kind}/{c.subject}": c for c in conditions}
        for key in [*self._lives, *(k for k in present if k not in self._lives)]:
            life, condition = self._lives.get(key), present.get(key)
            kind = condition.kind if condition else self._lives[key].condition.kind
            if kind in held:
                if life is not None and life.state == "suspected":
                    del self._lives[key]
                continue
            if life is None:
                assert condition is not None
                life = self._lives[key] = _Life("quiet", tick - condition.ago, condition)
            found += self._move(life, condition, time)
            if life.state in ("quiet", "resolved"):
                del self._lives[key]
        return found

    def firing(self) -> list[Condition]:
        """What is firing or clearing now."""
        return [life.condition for life in self._lives.values() if life.state in ("firing", "clearing")]

    def _move(self, life: _Life, condition: Condition | None, time: float) -> list[Finding]:
        event: Event
        if condition:
            life.condition, life.present, life.absent = condition, life.present + 1, 0
            event = "confirmed" if life.present + condition.ago >= condition.need else "seen"
        else:
            life.present, life.absent = 0, life.absent + 1
            event = "expired" if life.absent >= self._clear else "absent"
        life.state, send = TRANSITIONS[life.state, event]
        if send == "nothing" or (send == "repeat" and time - life.sent < self._repeat):
            return []
        life.sent = time
        return [self._finding(life, time, "resolved" if send == "resolved" else "firing")]

    def _finding(self, life: _Life, time: float, state: FindingState) -> Finding:
        c = life.condition
        return Finding(
            id=stable_id(self._fleet, c.kind, c.subject, life.onset_tick),
            fleet=self._fleet,
            target=c.target,
            pool=c.pool,
            version=c.version,
            kind=c.kind,
            severity=c.severity,
            onset=life.onset_tick * self._interval,
            time=time,
            state=state,
            confidence=round(c.confidence, 4),
            summary=c.summary if state == "firing" else f"over: {c.summary}",
            evidence=c.evidence,
        )

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {key: msgspec.to_builtins(life) for key, life in self._lives.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._lives = {key: msgspec.convert(life, _Life) for key, life in state.items()}

"""Decisions before they get their final form: what is meant, and the cause that makes it said and applied once."""

from __future__ import annotations

from typing import NamedTuple

from trimtab.messages import Action, Decision, stable_id


class Draft(NamedTuple):
    """An act, or with action `hold` a refusal. The same `cause` gives the same decision id."""

    action: Action
    cause: tuple[object, ...]
    reason: str
    version: int | None = None
    target: str | None = None
    from_: dict[str, object] = {}
    to: dict[str, object] = {}
    because: list[str] = []
    guard: dict[str, object] = {}

    def decision_id(self, fleet: str) -> str:
        """The id under which it is acted on once."""
        return stable_id(fleet, *self.cause)

    def decision(self, fleet: str, now: float, *, dry_run: bool = False, refused: str | None = None) -> Decision:
        """As a message. `refused`: why it is said but not done."""
        return Decision(
            id=self.decision_id(fleet),
            fleet=fleet,
            time=now,
            action=self.action,
            version=self.version,
            target=self.target,
            from_=self.from_,
            to=self.to,
            because=self.because,
            guard=self.guard,
            dry_run=dry_run,
            outcome="refused" if refused or self.action == "hold" else "applied",
            reason=f"{refused}: {self.reason}" if refused else self.reason,
        )

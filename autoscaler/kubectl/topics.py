"""Decisions and findings of one fleet from Kafka, which keeps them for longer than the API server keeps Events."""

from __future__ import annotations

from trimtab.bus import Bus
from trimtab.messages import DECISIONS, FINDINGS, Decision, Finding


def read(bus: Bus, fleet: str) -> tuple[list[Decision], dict[str, Finding]]:
    """The decisions, and the findings by id (their newest word), that the topics hold. Raises `Unavailable`."""
    decisions: list[Decision] = []
    findings: dict[str, Finding] = {}
    for record in bus.read_all([DECISIONS, FINDINGS]):
        message = record.message
        if isinstance(message, Decision) and message.fleet == fleet:
            decisions.append(message)
        elif isinstance(message, Finding) and message.fleet == fleet:
            findings[message.id] = message
    return decisions, findings

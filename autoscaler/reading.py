"""From records to a step's inputs: the same order and the same choice in the live loop and in a replay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autoscaler.memory import Inputs
from trimtab.bus import Record
from trimtab.messages import FINDINGS, FLEETS, TELEMETRY, Finding, FleetSpec, FleetState, Snapshot

TOPICS = (TELEMETRY, FINDINGS, FLEETS)


def place(record: Record) -> str:
    """The partition of a record, as `FleetState.consumed` names it."""
    return f"{record.topic}:{record.partition}"


def fresh(records: Iterable[Record], consumed: Mapping[str, int]) -> list[Record]:
    """The records that were not processed yet, in the order in which steps take them."""
    new = [record for record in records if record.offset >= consumed.get(place(record), 0)]
    return sorted(new, key=lambda record: (record.topic, record.partition, record.offset))


def advanced(consumed: Mapping[str, int], records: Iterable[Record]) -> dict[str, int]:
    """How far each partition is processed after these records."""
    after = dict(consumed)
    for record in records:
        after[place(record)] = max(after.get(place(record), 0), record.offset + 1)
    return after


def inputs(state: FleetState, records: Iterable[Record]) -> Inputs:
    """A step's inputs. Records are ordered by partition; within a kind, messages go by their own time."""
    specs: list[FleetSpec] = []
    snapshots: list[Snapshot] = []
    findings: list[Finding] = []
    for record in records:
        message = record.message
        if isinstance(message, FleetSpec):
            specs.append(message)
        elif isinstance(message, Snapshot):
            snapshots.append(message)
        elif isinstance(message, Finding):
            findings.append(message)
    snapshots.sort(key=lambda snapshot: snapshot.time)
    findings.sort(key=lambda finding: finding.time)
    return Inputs(state=state, specs=specs, snapshots=snapshots, findings=findings)

"""The first step: takes new records into memory. Records of other fleets and roles, repetitions and stale news change nothing."""

from __future__ import annotations

import msgspec

from autoscaler import baseline, canary, demand
from autoscaler.gateways import Merged, merge
from autoscaler.memory import Inputs, PolicyMemory, Quarantined
from autoscaler.settings import AutoscaleSettings
from trimtab.messages import Snapshot


def collect(memory: PolicyMemory, inputs: Inputs, now: float, settings: AutoscaleSettings) -> PolicyMemory:
    """Memory after the new specs, findings and snapshots, in this order."""
    fleet = inputs.state.fleet
    if memory.started is None:
        memory = msgspec.structs.replace(memory, started=now)
    for spec in inputs.specs:
        if spec.fleet == fleet and (memory.spec is None or spec.time >= memory.spec.time):
            memory = msgspec.structs.replace(memory, spec=spec)
    memory = _collect_findings(memory, inputs)
    for snapshot in inputs.snapshots:
        # A snapshot from the future comes from a wrong clock; taking it in would make everything after it look old.
        if snapshot.fleet == fleet and snapshot.time <= now + settings.stale_seconds:
            memory = _collect_snapshot(memory, snapshot, settings)
    return memory


def _collect_findings(memory: PolicyMemory, inputs: Inputs) -> PolicyMemory:
    findings = dict(memory.findings)
    quarantined = list(memory.quarantined)
    for finding in inputs.findings:
        if finding.fleet != inputs.state.fleet:
            continue
        if finding.state == "firing":
            findings[finding.id] = finding
        else:
            findings.pop(finding.id, None)
        resolved_at = finding.time if finding.state == "resolved" else None
        quarantined = [
            msgspec.structs.replace(item, resolved_at=resolved_at) if item.cause == finding.id else item for item in quarantined
        ]
    return msgspec.structs.replace(memory, findings=findings, quarantined=quarantined)


def _collect_snapshot(memory: PolicyMemory, snapshot: Snapshot, settings: AutoscaleSettings) -> PolicyMemory:
    if snapshot.role not in ("gateway", "app"):
        return memory
    merged, together = merge(memory.merged.get(snapshot.role, Merged()), snapshot, settings.stale_seconds)
    memory = msgspec.structs.replace(memory, merged={**memory.merged, snapshot.role: merged})
    return memory if together is None else _read(memory, together, settings)


def _read(memory: PolicyMemory, snapshot: Snapshot, settings: AutoscaleSettings) -> PolicyMemory:
    rollout = memory.rollout
    if snapshot.role == "gateway":
        memory = msgspec.structs.replace(memory, demand=demand.observe(memory.demand, snapshot))
        if memory.demand.seen != snapshot.time:
            return memory  # failed, frozen or repeated: it says nothing about versions either
    if rollout.stable is not None:
        memory = msgspec.structs.replace(memory, baseline=baseline.follow(memory.baseline, snapshot, rollout.stable))
    if rollout.canary is not None:
        compared = canary.observe(rollout.canary, snapshot, settings)
        if memory.spec is not None:
            compared = canary.fix_bound(compared, memory.baseline, memory.spec.slo.p99_seconds, settings)
        memory = msgspec.structs.replace(memory, rollout=msgspec.structs.replace(rollout, canary=compared))
    return memory


def still_there(memory: PolicyMemory, inputs: Inputs) -> list[Quarantined]:
    """The quarantined replicas that still exist."""
    names = {replica.name for pool in inputs.state.pools for replica in pool.replicas}
    return [item for item in memory.quarantined if item.replica in names]

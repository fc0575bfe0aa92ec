"""What is not done although something asks for it, and why: said once per cause."""

from __future__ import annotations

from autoscaler.evaluate import View
from autoscaler.memory import PolicyMemory
from autoscaler.rollout import Phase
from autoscaler.saying import Draft
from autoscaler.settings import AutoscaleSettings
from autoscaler.watch import bad_replica, bad_version
from trimtab.messages import Finding


def holds(memory: PolicyMemory, view: View, settling: bool, settings: AutoscaleSettings) -> list[Draft]:
    """Everything that is held now."""
    drafts = []
    if view.blind and not settling:
        drafts.append(_blind(memory, view))
    for finding in memory.findings.values():
        draft = _unanswered(finding, memory, view, settings)
        if draft is not None:
            drafts.append(draft)
    rollout = memory.rollout
    verdict = view.verdict
    long = view.now - rollout.since >= 2 * settings.step_seconds
    if rollout.phase is Phase.CANARY and long and verdict and verdict.kind == "hold" and not view.blind:
        drafts.append(
            Draft(
                action="hold",
                cause=("hold", "verdict", rollout.candidate, rollout.since, verdict.reason.partition(":")[0]),
                version=rollout.candidate,
                guard=dict(verdict.numbers),
                reason=f"version {rollout.candidate} is not promoted yet: {verdict.reason}",
            )
        )
    return drafts


def _blind(memory: PolicyMemory, view: View) -> Draft:
    return Draft(
        action="hold",
        cause=("hold", "telemetry", memory.blind_since),
        because=view.gaps or [f"gateway_seen={memory.demand.seen}"],
        reason=f"{view.blind}; nothing is scaled down or rolled back on this",
    )


def _unanswered(finding: Finding, memory: PolicyMemory, view: View, settings: AutoscaleSettings) -> Draft | None:
    """A finding that asks for an act which the policy refuses."""
    rollout = memory.rollout
    if finding.kind == "saturation" and view.need is not None and memory.size is not None and view.need <= memory.size:
        why = f"{view.demand_words}, which {view.need} of {memory.size} replicas can serve: demand does not explain it"
    elif finding.kind == "telemetry_gap" and not view.blind:
        why = "nothing is scaled down while a target is not seen"
    elif finding.kind == "dependency_fault":
        why = "a dependency is at fault: no replica or version of this fleet is the cure"
    elif bad_version(finding, rollout.stable, settings) and rollout.phase is not Phase.GUARD:
        why = f"version {finding.version} serves alone: there is no warm version to go back to"
    elif finding.kind in ("version_regression", "quality_shift") and finding.version == rollout.judged and not view.blind:
        if finding.confidence >= settings.rollback_confidence:
            return None
        why = f"confidence {finding.confidence:.2f} is under {settings.rollback_confidence:.2f}; the comparison decides"
    elif finding.kind in ("replica_fault", "gpu_fault") and not bad_replica(finding, settings):
        why = f"confidence {finding.confidence:.2f} is under {settings.quarantine_confidence:.2f}, or no replica is named"
    elif bad_replica(finding, settings) and not _known(finding, memory, view):
        why = f"{finding.target} is no replica of this fleet"
    else:
        return None
    return Draft(
        action="hold",
        cause=("hold", finding.kind, finding.id),
        version=finding.version,
        target=finding.target,
        because=[finding.id, *view.demand_numbers],
        reason=f"no act on {finding.kind} ({finding.summary}): {why}",
    )


def _known(finding: Finding, memory: PolicyMemory, view: View) -> bool:
    names = {replica.name for pool in view.state.pools for replica in pool.replicas}
    return finding.target in names or any(item.replica == finding.target for item in memory.quarantined)

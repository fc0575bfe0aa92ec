"""The policy: a pure function from what is remembered and what is new to a plan and decisions. Four steps, in this order:

    collect   new records into memory                                      collect.py
    evaluate  what they mean: demand, verdict, trust in telemetry          evaluate.py
    decide    quarantine, rollout, size                                    here; quarantine.py, watch.py, rollout.py, sizing.py
    apply     the plan goes to the actuator                                loop.py

What it promises:
1. Replicas follow arrivals, never a fault.
2. Missing, stale or frozen telemetry never scales down and never rolls back by itself; it is said.
3. One owner of replicas and weights: the plan is always the whole fleet.
4. A canary is judged against the stable pool at the same time; too few samples means hold.
5. After a promotion the previous version stays warm and the comparison goes on.
6. Quarantine takes one replica out at once, within a budget; many at once are not a replica fault.
7. Every act and every refusal is a decision, and the same records give the same decisions.
"""

from __future__ import annotations

import msgspec

from autoscaler import canary, demand
from autoscaler.collect import collect
from autoscaler.evaluate import View, evaluate, settling
from autoscaler.holds import holds
from autoscaler.memory import Inputs, PolicyMemory, Step
from autoscaler.planning import adopt, as_observed, plan_for
from autoscaler.quarantine import quarantine
from autoscaler.rollout import Context, Event, Phase, advance, weights
from autoscaler.saying import Draft
from autoscaler.settings import AutoscaleSettings
from autoscaler.sizing import clamp
from autoscaler.watch import next_event
from trimtab.messages import Decision, FleetPlan, FleetSpec

_SAID_LIMIT = 500


def step(memory: PolicyMemory, inputs: Inputs, now: float, settings: AutoscaleSettings) -> Step:
    """One step at unix time `now`. Without a spec for the fleet nothing is decided. Pure: the same arguments, the same step."""
    memory = collect(memory, inputs, now, settings)
    spec = memory.spec
    if spec is None:
        return Step(memory, None, [])
    memory = adopt(memory, spec, inputs.state)
    view = evaluate(memory, spec, inputs.state, now, settings)
    memory = msgspec.structs.replace(
        memory,
        demand=demand.remember_need(memory.demand, now, view.need, settings),
        blind_since=None if view.blind is None else (memory.blind_since or now),
    )
    decided, acts, refusals = decide(memory, inputs, view, settings)
    if spec.paused or spec.dry_run:
        return _only_say(memory, spec, acts + refusals, view)
    decided, said = _say(decided, refusals, spec, now)
    decisions = [draft.decision(spec.fleet, now) for draft in acts] + said
    observed = as_observed(decided.plan, inputs.state)
    return Step(decided, None if observed else decided.plan, decisions)


def decide(
    memory: PolicyMemory, inputs: Inputs, view: View, settings: AutoscaleSettings
) -> tuple[PolicyMemory, list[Draft], list[Draft]]:
    """Memory as it is after the acts, the acts, and what is refused or held. The plan in memory changes only with an act."""
    before = memory.plan
    memory, health = quarantine(memory, inputs, view, settings)
    acts = [draft for draft in health if draft.action != "hold"]
    refusals = [draft for draft in health if draft.action == "hold"]
    memory, moves = _roll(memory, view, settings)
    acts += moves
    memory = msgspec.structs.replace(memory, size=_size(memory, view))
    plan = plan_for(memory, view, settings)
    if moves:
        acts[-len(moves) :] = [_with_replicas(draft, before, plan) for draft in moves]
    else:
        acts += _scalings(before, plan, memory, view)
    if acts:
        plan = msgspec.structs.replace(plan, decision=acts[-1].decision_id(view.spec.fleet))
        memory = msgspec.structs.replace(memory, plan=plan)
    return memory, acts, refusals + holds(memory, view, settling(memory, view.now), settings)


def _roll(memory: PolicyMemory, view: View, settings: AutoscaleSettings) -> tuple[PolicyMemory, list[Draft]]:
    seen = next_event(memory, view, settings)
    if seen is None:
        return memory, []
    old = memory.rollout
    moved, transition = advance(old, seen.event, Context(view.now, view.spec.version, view.spec.time))
    if seen.event is Event.READY and old.stable is not None and old.candidate is not None:
        compared = canary.start(old.stable, old.candidate, memory.baseline, view.spec.slo.p99_seconds, settings, view.now)
        moved = msgspec.structs.replace(moved, canary=compared)
    version = moved.judged if transition.action != "rollback" else old.judged
    draft = Draft(
        action=transition.action,
        cause=(transition.action, seen.event, version, moved.released or old.released, old.step),
        version=version if version is not None else moved.stable,
        from_={"weights": _weights_by_name(weights(old, settings.canary_weights, settings.guard_weight))},
        to={"weights": _weights_by_name(weights(moved, settings.canary_weights, settings.guard_weight))},
        because=seen.because,
        guard=seen.guard,
        reason=f"{seen.reason}; {transition.words}",
    )
    size = memory.size
    if transition.action == "promote" and size is not None:
        # What the new pool was grown to is its size now; the old one stays warm beside it for the guard period.
        grown = next((pool.replicas for pool in memory.plan.pools if pool.version == moved.stable), size) if memory.plan else size
        size = clamp(max(grown, view.need or grown), view.spec)
    return msgspec.structs.replace(memory, rollout=moved, size=size), [draft]


def _size(memory: PolicyMemory, view: View) -> int | None:
    """Grow at once; shrink only to what the whole window needed, not during a rollout, and not while anything is unknown."""
    if memory.size is None:
        return None
    size = clamp(memory.size, view.spec)
    if view.need is not None and view.need > size:
        return view.need
    trusted = view.blind is None and not view.gaps and memory.rollout.phase is Phase.IDLE
    if trusted and view.settled is not None and view.settled < size:
        return clamp(view.settled, view.spec)
    return size


def _scalings(before: FleetPlan | None, plan: FleetPlan, memory: PolicyMemory, view: View) -> list[Draft]:
    old = {pool.version: pool.replicas for pool in before.pools} if before else {}
    drafts = _leftovers(before, plan) if before else []
    for pool in plan.pools:
        was = old.get(pool.version, 0)
        if was == pool.replicas:
            continue
        if before is None:
            why = "the fleet starts"
        elif pool.replicas > was:
            why = f"{view.demand_words}, one replica takes {view.spec.capacity_per_replica:g}"
        else:
            why = f"{view.demand_words}, and fewer replicas sufficed for the whole window"
        drafts.append(
            Draft(
                action="scale",
                cause=("scale", pool.version, was, pool.replicas, before.decision if before else view.spec.time),
                version=pool.version,
                from_={"replicas": was},
                to={"replicas": pool.replicas},
                because=view.demand_numbers or [f"release_time={view.spec.time:.3f}"],
                guard={"min": view.spec.min_replicas, "max": view.spec.max_replicas},
                reason=f"{pool.role} version {pool.version} from {was} to {pool.replicas} replicas: {why}",
            )
        )
    return drafts


def _leftovers(before: FleetPlan, plan: FleetPlan) -> list[Draft]:
    """Pools of an earlier autoscaler whose memory is lost: they are part of no rollout now."""
    gone = sorted({pool.version for pool in before.pools} - {pool.version for pool in plan.pools})
    if not gone:
        return []
    old, new = ({str(pool.version): pool.weight for pool in each.pools} for each in (before, plan))
    words = f"version {gone[0]} is part of no rollout that is known here; it is drained"
    return [
        Draft("shift_traffic", ("leftover", *gone, before.decision), words, gone[0], None, {"weights": old}, {"weights": new})
    ]


def _with_replicas(draft: Draft, before: FleetPlan | None, plan: FleetPlan) -> Draft:
    old = {str(pool.version): pool.replicas for pool in before.pools} if before else {}
    new = {str(pool.version): pool.replicas for pool in plan.pools}
    return draft._replace(from_={**draft.from_, "replicas": old}, to={**draft.to, "replicas": new})


def _say(memory: PolicyMemory, refusals: list[Draft], spec: FleetSpec, now: float) -> tuple[PolicyMemory, list[Decision]]:
    """Refusals that were not said yet, and memory with them. A cause that went away and comes back has another id."""
    said = dict(memory.said)
    decisions = []
    for draft in refusals:
        key = draft.decision_id(spec.fleet)
        if key not in said:
            said[key] = now
            decisions.append(draft.decision(spec.fleet, now))
    newest = dict(sorted(said.items(), key=lambda item: item[1])[-_SAID_LIMIT:])
    return msgspec.structs.replace(memory, said=newest), decisions


def _only_say(memory: PolicyMemory, spec: FleetSpec, drafts: list[Draft], view: View) -> Step:
    """Paused or a dry run: every act is said once, as refused, and nothing but what was observed is remembered."""
    why = "paused by the owner, would otherwise act" if spec.paused else "dry run, would otherwise act"
    said = dict(memory.said)
    decisions = []
    for draft in drafts:
        key = f"{draft.decision_id(spec.fleet)}:{'paused' if spec.paused else 'dry_run'}"
        if key not in said:
            said[key] = view.now
            refused = None if draft.action == "hold" else why
            decisions.append(draft.decision(spec.fleet, view.now, dry_run=spec.dry_run, refused=refused))
    newest = dict(sorted(said.items(), key=lambda item: item[1])[-_SAID_LIMIT:])
    return Step(msgspec.structs.replace(memory, said=newest), None, decisions)


def _weights_by_name(shares: dict[int, int]) -> dict[str, int]:
    return {str(version): share for version, share in shares.items()}

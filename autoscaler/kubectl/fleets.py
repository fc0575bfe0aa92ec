"""A ModelFleet as people look at it. What is not known is None."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from trimtab.kube import Object


class _Camel(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Fields as the API spells them."""


class Condition(_Camel, frozen=True, kw_only=True):
    """One of the operator's conditions."""

    type: str
    status: str = "Unknown"
    reason: str | None = None
    message: str | None = None
    last_transition_time: str | None = None


class Version(_Camel, frozen=True, kw_only=True):
    """One pool."""

    version: int
    role: str | None = None
    weight: int | None = None
    wanted: int | None = None
    ready: int | None = None


class LastDecision(_Camel, frozen=True, kw_only=True):
    """The newest decision."""

    action: str | None = None
    outcome: str | None = None
    reason: str | None = None
    time: str | None = None


class Answer(_Camel, frozen=True, kw_only=True):
    """What became of a request."""

    id: str
    kind: str | None = None
    outcome: str | None = None
    reason: str | None = None
    time: str | None = None


class _Demand(_Camel, frozen=True, kw_only=True):
    arrivals_per_second: float | None = None


class _Status(_Camel, frozen=True, kw_only=True):
    observed_generation: int | None = None
    conditions: list[Condition] = []
    replicas: int | None = None
    ready_replicas: int | None = None
    desired_replicas: int | None = None
    version: int | None = None
    canary_version: int | None = None
    canary_weight: int | None = None
    phase: str | None = None
    versions: list[Version] = []
    quarantined: list[str] = []
    slo: str | None = None
    demand: _Demand = _Demand()
    last_decision: LastDecision = LastDecision()
    requests: list[Answer] = []


class Override(_Camel, frozen=True, kw_only=True):
    """A size that a person asked for, until a moment."""

    replicas: int
    until: str


class Fleet(_Camel, frozen=True, kw_only=True):
    """A ModelFleet. Times are RFC 3339 as in the API."""

    namespace: str
    name: str
    created: str | None
    model: str | None
    paused: bool
    dry_run: bool
    spec_version: int | None
    override: Override | None
    up_to_date: bool
    """The operator has seen the newest spec."""
    ready: str
    version: int | None
    canary_version: int | None
    canary_weight: int | None
    phase: str | None
    replicas: int | None
    ready_replicas: int | None
    desired_replicas: int | None
    slo: str | None
    arrivals_per_second: float | None
    versions: list[Version]
    quarantined: list[str]
    conditions: list[Condition]
    last_decision: LastDecision
    requests: list[Answer]


def fleet_of(thing: Object) -> Fleet:
    """The ModelFleet as the API gave it. The schema has checked it, so what is of another type is unknown to this version."""
    meta, spec = thing["metadata"], thing.get("spec") or {}
    try:
        status = msgspec.convert(thing.get("status") or {}, _Status, strict=False)
    except msgspec.ValidationError:
        status = _Status()
    ready = next((each.status for each in status.conditions if each.type == "Ready"), "Unknown")
    override = spec.get("override")
    return Fleet(
        namespace=meta["namespace"],
        name=meta["name"],
        created=meta.get("creationTimestamp"),
        model=spec.get("model"),
        paused=bool(spec.get("paused")),
        dry_run=bool(spec.get("dryRun")),
        spec_version=spec.get("version"),
        override=msgspec.convert(override, Override) if override else None,
        up_to_date=status.observed_generation == meta.get("generation"),
        ready=ready,
        version=status.version,
        canary_version=status.canary_version,
        canary_weight=status.canary_weight,
        phase=status.phase,
        replicas=status.replicas,
        ready_replicas=status.ready_replicas,
        desired_replicas=status.desired_replicas,
        slo=status.slo,
        arrivals_per_second=status.demand.arrivals_per_second,
        versions=status.versions,
        quarantined=status.quarantined,
        conditions=status.conditions,
        last_decision=status.last_decision,
        requests=status.requests,
    )


def moment(text: str | None) -> float | None:
    """Unix seconds of an RFC 3339 time; None when there is none."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC).timestamp()
    except ValueError:
        return None

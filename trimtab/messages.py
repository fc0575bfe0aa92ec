"""The messages that pass between the parts, and the topics they travel on.

Every message is a frozen `msgspec.Struct`, JSON on the wire, with ``schema: 1``. Unknown fields are ignored, so an older
reader survives a newer writer. Times are unix seconds (float), durations seconds, ratios 0..1. Unknown is `None` (or NaN
inside a matrix), never 0.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

SCHEMA = 1

Role = Literal["triton", "gateway", "gpu", "node", "vllm", "app"]
PoolRole = Literal["stable", "canary", "previous"]
FindingKind = Literal[
    "demand_shift",
    "saturation",
    "version_regression",
    "quality_shift",
    "replica_fault",
    "gpu_fault",
    "dependency_fault",
    "telemetry_gap",
]
Severity = Literal["info", "warning", "critical"]
FindingState = Literal["firing", "resolved"]
Action = Literal["scale", "shift_traffic", "promote", "rollback", "quarantine", "release", "hold"]
Outcome = Literal["applied", "refused", "failed"]
ReplicaPhase = Literal["starting", "ready", "draining", "quarantined", "failed"]
Cause = Literal["version", "replica", "demand", "telemetry", "dependency", "fleet"]
Happening = Literal["finding", "act", "refusal", "failure", "reminder", "resolved"]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What all messages share: the schema number on the wire."""

    schema: int = SCHEMA


class Snapshot(Message, frozen=True, kw_only=True):
    """One scrape of one target, untouched: raw counters, gauges and histogram buckets. Key: target.

    `series` maps ``name{label="value",...}`` (labels sorted by name) to the raw value; a scrape that failed has
    ``up=False``, an `error` in words and no series.
    """

    target: str
    fleet: str
    role: Role
    pool: PoolRole | None = None
    version: int | None = None
    time: float
    took: float
    up: bool
    error: str | None = None
    series: dict[str, float | None] = {}


def nobody_listens(error: str | None) -> bool:
    """Whether a failed scrape's `error` says that nobody listens there: such a target is gone, a silent one may serve."""
    words = (error or "").lower()
    return "refused" in words or "cannot connect" in words


class Score(Message, frozen=True, kw_only=True):
    """How unusual one target looked to one detector in one tick. Key: fleet.

    `score` is 0..1, calibrated like one minus a tail probability: 0.999 means that one normal tick in a thousand looks
    like this. While a detector is warming up it sends no score at all.
    """

    fleet: str
    target: str
    time: float
    detector: str
    score: float
    top: list[tuple[str, float]] = []


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One reason for a finding: what was observed against what was expected, and which detector says so."""

    detector: str
    series: str
    observed: float | None = None
    expected: float | None = None
    score: float | None = None
    threshold: float | None = None
    window: float | None = None


class Finding(Message, frozen=True, kw_only=True):
    """A diagnosed condition. Key: fleet. The same onset gives the same `id`, so a restart repeats nothing."""

    id: str
    fleet: str
    target: str | None = None
    pool: PoolRole | None = None
    version: int | None = None
    kind: FindingKind
    severity: Severity
    onset: float
    time: float
    state: FindingState
    confidence: float
    summary: str
    evidence: list[Evidence] = []


class Decision(Message, frozen=True, kw_only=True):
    """What was done or refused, and why. Key: fleet. `id` comes from the cause, so one cause is acted on once.

    `from_` and `to` hold what changes, e.g. ``{"replicas": 2}`` -> ``{"replicas": 4}`` or ``{"weights": {"1": 80, "2": 20}}``.
    `because` lists finding ids or demand numbers such as ``arrivals_per_second=82.1``.
    """

    id: str
    fleet: str
    time: float
    action: Action
    version: int | None = None
    target: str | None = None
    from_: dict[str, object] = msgspec.field(default_factory=dict, name="from")
    to: dict[str, object] = msgspec.field(default_factory=dict)
    because: list[str] = []
    guard: dict[str, object] = {}
    dry_run: bool = False
    outcome: Outcome
    reason: str
    took: float = 0.0


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """What users were promised: a latency percentile in seconds and a ratio of failed requests."""

    p99_seconds: float = 0.25
    error_ratio: float = 0.01


class FleetSpec(Message, frozen=True, kw_only=True):
    """What the owner of a fleet wants. Key: fleet. A release is a spec whose `version` has changed."""

    fleet: str
    model: str
    version: int
    min_replicas: int = 1
    max_replicas: int = 4
    slo: Slo = Slo()
    capacity_per_replica: float
    """Requests per second that one replica serves within the SLO."""
    paused: bool = False
    dry_run: bool = False
    promote: int | None = None
    """A version on trial that the owner promotes without waiting for the comparison."""
    time: float = 0.0


class ReplicaState(msgspec.Struct, frozen=True, kw_only=True):
    """One serving process as the actuator sees it. `in_traffic` tells whether the gateway routes to it."""

    name: str
    version: int
    phase: ReplicaPhase
    since: float
    in_traffic: bool = False
    error: str | None = None


class PoolState(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas of one version. `weight` is the share of traffic in percent."""

    version: int
    role: PoolRole
    weight: int
    wanted: int
    replicas: list[ReplicaState] = []


class FleetState(Message, frozen=True, kw_only=True):
    """What runs now, as observed through the actuator. Key: fleet.

    `consumed` says how far the autoscaler had read each topic (``"topic:partition" -> next offset``) when it decided on
    this observation, so that the recorded topics replay to the same decisions.
    """

    fleet: str
    time: float
    pools: list[PoolState] = []
    consumed: dict[str, int] = {}


class PoolPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one pool should be: `replicas` healthy replicas of `version`, and `weight` percent of the traffic."""

    version: int
    role: PoolRole
    replicas: int
    weight: int


class FleetPlan(Message, frozen=True, kw_only=True):
    """The whole desired fleet; applying it twice changes nothing. Replicas in `quarantined` get no traffic and do not count.

    A version that is in no pool is drained and stopped. Weights add up to 100.
    """

    fleet: str
    decision: str
    pools: list[PoolPlan]
    quarantined: list[str] = []


class DetectorModel(Message, frozen=True, kw_only=True):
    """Says that a trained set of detectors is ready at `path` (a folder). Key: fleet. The newest one is the one to use."""

    fleet: str
    path: str
    digest: str
    trained_from: float
    trained_to: float
    time: float


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One cause as one thread, as it stood at one moment. `told`: finding or decision id -> when and as what it was last said;
    `cited`: findings that a decision named before they were seen; `firing`: findings that are not over."""

    id: str
    fleet: str
    cause: Cause
    subject: str
    state: FindingState
    severity: Severity
    opened: float
    updated: float
    resolved: float | None = None
    updates: int = 0
    firing: list[str] = []
    cited: list[str] = []
    told: dict[str, tuple[float, str]] = {}


class IncidentUpdate(Message, frozen=True, kw_only=True):
    """What people should hear about an incident. Key: fleet. The same happening has the same `id`."""

    id: str
    fleet: str
    time: float
    happening: Happening
    incident: Incident
    title: str
    text: str
    finding: Finding | None = None
    decision: Decision | None = None


class Delivery(Message, frozen=True, kw_only=True):
    """How a delivery ended. Key: fleet. A dead one carries the `update`; `thread` is the receiver's own name for the thread."""

    fleet: str
    receiver: str
    id: str
    incident: str
    time: float
    attempts: int
    dead: bool = False
    reason: str | None = None
    thread: str | None = None
    update: IncidentUpdate | None = None


class Forgotten(Message, frozen=True, kw_only=True):
    """What a compacted topic said of a fleet no longer holds: it is deleted. Travels as a key without a value."""

    fleet: str


TELEMETRY = "trimtab.telemetry"
SCORES = "trimtab.scores"
FINDINGS = "trimtab.findings"
DECISIONS = "trimtab.decisions"
FLEETS = "trimtab.fleets"
STATES = "trimtab.states"
MODELS = "trimtab.models"
INCIDENTS = "trimtab.incidents"
NOTIFY_SENT = "trimtab.notify.sent"
NOTIFY_DEAD = "trimtab.notify.dead"

TOPICS: dict[str, type[Message]] = {
    TELEMETRY: Snapshot,
    SCORES: Score,
    FINDINGS: Finding,
    DECISIONS: Decision,
    FLEETS: FleetSpec,
    STATES: FleetState,
    MODELS: DetectorModel,
    INCIDENTS: IncidentUpdate,
    NOTIFY_SENT: Delivery,
    NOTIFY_DEAD: Delivery,
}


def key_of(message: Message) -> str:
    """The Kafka key of a message: the target of a Snapshot, the fleet of everything else."""
    return message.target if isinstance(message, Snapshot) else str(getattr(message, "fleet"))  # noqa: B009


def stable_id(*parts: object) -> str:
    """A short id that depends only on its parts: the same cause gives the same id after a restart."""
    return hashlib.sha256("\x1f".join(str(p) for p in parts).encode()).hexdigest()[:16]

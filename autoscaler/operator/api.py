"""What a ModelFleet may say: the one source of the CRD's schema, of its documentation and of the operator's reading.

Field names are camelCase on the wire. What is not known here is ignored, so that a newer CRD does not stop an older operator.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
Quantity = Annotated[int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True})]
Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]
Step = Annotated[int, Field(ge=1, le=99)]
FREE: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}


def _rules(*rules: tuple[str, str]) -> dict[str, Any]:
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in rules]}


class Part(BaseModel):
    """Base of all parts of the spec."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Repository(Part):
    """Where the model's versions come from: an image that carries them, or a volume with `<model>/<version>/`."""

    image: str | None = Field(None, max_length=500, description="Serving image. Default: the operator's own setting.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="When the image is pulled.")
    pull_secrets: list[str] = Field([], max_length=8, description="Names of Secrets in this namespace for the registry.")
    claim_name: str | None = Field(
        None, max_length=253, description="PersistentVolumeClaim with the versions, mounted read-only. Default: the image's own."
    )


class TargetRef(Part):
    """A Deployment of your own (Triton, vLLM or other): scaled and healed, never owned, made or deleted."""

    api_version: Literal["apps/v1"] = Field("apps/v1", description="Only apps/v1.")
    kind: Literal["Deployment"] = Field("Deployment", description="Only Deployment.")
    role: Literal["triton", "vllm"] = Field("triton", description="What its pods are, for whoever scrapes them.")
    name: str = Field(
        min_length=1,
        max_length=253,
        description="Its name. With {version} in it, each version has its own and releases move traffic.",
    )


class Replicas(Part):
    """How many replicas the pool that serves may have."""

    model_config = ConfigDict(
        json_schema_extra=_rules(("self.min <= self.max", "replicas.min must not be greater than replicas.max"))
    )
    min: int = Field(1, ge=1, le=1000, description="Fewest replicas; `kubectl scale` and foreign autoscalers set this floor.")
    max: int = Field(4, ge=1, le=1000, description="Most replicas; a rollout may add half of it for its time.")


class Slo(Part):
    """What users were promised."""

    p99_milliseconds: int = Field(250, ge=1, le=600_000, description="99 of 100 requests answer within this time.")
    error_percent: float = Field(1.0, ge=0, le=100, description="Share of requests that may fail, in percent.")


class Resources(Part):
    """Of the serving container, as in any pod."""

    requests: dict[str, Quantity] = Field(
        {"cpu": "250m", "memory": "400Mi"}, description="What the scheduler reserves for a replica."
    )
    limits: dict[str, Quantity] = Field({"memory": "800Mi"}, description="What a replica may use at most.")


class Gpu(Part):
    """GPUs of each replica."""

    count: int = Field(1, ge=0, le=16, description="GPUs per replica.")
    resource: str = Field("nvidia.com/gpu", max_length=253, description="Name of the resource, such as nvidia.com/mig-1g.10gb.")


class Scheduling(Part):
    """Where replicas may run."""

    node_selector: dict[str, str] = Field({}, description="Labels that a node must have.")
    tolerations: list[Annotated[dict[str, Any], Field(json_schema_extra=FREE)]] = Field(
        [], max_length=20, description="Tolerations as in any pod."
    )
    priority_class_name: str | None = Field(None, max_length=253, description="Priority class of the pods.")


class Scaling(Part):
    """How replicas follow demand."""

    target_utilisation_percent: int = Field(
        75, ge=1, le=100, description="Share of capacityPerReplica that is planned to be used."
    )
    demand_window_seconds: int = Field(20, ge=1, le=3600, description="Window of the steady demand estimate.")
    scale_down_window_seconds: int = Field(
        120, ge=0, le=86_400, description="Replicas fall only to the highest need of this window."
    )


class Rollout(Part):
    """How a new version gets its traffic."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            (
                "self.steps.isSorted() && self.steps.all(x, self.steps.exists_one(y, y == x))",
                "rollout.steps must rise, for example [20, 50]",
            )
        )
    )
    steps: list[Step] = Field(
        [20, 50],
        min_length=1,
        max_length=10,
        description="Shares of traffic in percent that a new version gets, one after the other.",
    )
    step_seconds: int = Field(5, ge=0, le=86_400, description="Least time at each share.")
    guard_seconds: int = Field(30, ge=0, le=604_800, description="How long the previous version stays warm after a promotion.")
    guard_weight: int = Field(10, ge=1, le=50, description="Share of traffic that it keeps meanwhile, in percent.")
    start_deadline_seconds: int = Field(
        180, ge=5, le=86_400, description="A canary that is not ready after this time is rolled back. Covers pulling the image."
    )


class Remediation(Part):
    """What may be done about sick replicas and nodes."""

    quarantine: bool = Field(True, description="Take sick replicas out of traffic and replace them. Off: it is only said.")
    max_unavailable_percent: int = Field(
        34,
        ge=1,
        le=100,
        description="Share of a pool that may be out at a time (always at least one); also of the disruption budget.",
    )
    quarantines_per_window: int = Field(3, ge=1, le=1000, description="Most quarantines within windowSeconds.")
    window_seconds: int = Field(600, ge=1, le=86_400, description="Window of that budget.")
    keep_seconds: int = Field(600, ge=0, le=604_800, description="How long a quarantined pod is kept to be looked at.")
    cordon_nodes: bool = Field(False, description="Mark the node of a dead GPU unschedulable. Needs RBAC on nodes.")


class Gateway(Part):
    """The Envoy pods of a managed fleet."""

    replicas: int = Field(2, ge=1, le=50, description="Envoy pods.")
    image: str | None = Field(None, max_length=500, description="Image with Envoy. Default: the operator's own setting.")
    access_secret: str | None = Field(
        None,
        max_length=253,
        description="Secret in this namespace with any of token (bearer tokens, one a line), tls.crt and tls.key, ca.crt "
        "(clients must show a certificate by it). Without it everybody who reaches the gateway may ask.",
    )
    mirror_percent: int = Field(
        0, ge=0, le=100, description="Share of the inference requests that is copied to a canary; its answers are thrown away."
    )


class Routing(Part):
    """Traffic of a targetRef fleet: the weights of an HTTPRoute of the Gateway API. The route must exist."""

    http_route: str = Field(min_length=1, max_length=253, description="Name of the HTTPRoute in this namespace.")
    service: str = Field(
        min_length=1,
        max_length=253,
        description="Name of a version's Service among the route's backends; {version} is filled in.",
    )


class Window(Part):
    """A span of time: days and clock times of a week, and, or instead, two fixed moments."""

    name: str = Field("", max_length=100, description="For people; shown in conditions.")
    days: list[Day] = Field([], max_length=7, description="Days on which it begins. Empty: every day.")
    from_: Clock = Field("00:00", alias="from", description="Beginning, HH:MM.")
    to: Clock = Field("24:00", description="End, HH:MM; before `from` it lies on the next day.")
    time_zone: str = Field("UTC", max_length=64, description="IANA name such as Europe/Berlin.")
    start: datetime | None = Field(None, description="Not before this moment.")
    end: datetime | None = Field(None, description="Not from this moment on.")


_ENDS = ("!has(self.start) || !has(self.end) || self.start < self.end", "start must be before end")


class Freeze(Window):
    """No release begins in it; quarantine and scaling go on, and so does a rollout that is under way."""

    model_config = ConfigDict(json_schema_extra=_rules(_ENDS))


class ScheduleEntry(Window):
    """Other bounds for replicas in a window; the first entry that holds counts."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            _ENDS,
            (
                "!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
                "schedule: minReplicas must not be greater than maxReplicas",
            ),
        )
    )
    min_replicas: int | None = Field(None, ge=1, le=1000, description="In place of replicas.min.")
    max_replicas: int | None = Field(None, ge=1, le=1000, description="In place of replicas.max.")


class Override(Part):
    """A size that a person asks for, for a time."""

    replicas: int = Field(ge=1, le=1000, description="The serving pool's size, within replicas.min and replicas.max.")
    until: datetime = Field(description="From this moment on it says nothing any more.")


class ModelFleetSpec(Part):
    """What the owner of a fleet wants."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            (
                "!(has(self.targetRef) && has(self.repository))",
                "set targetRef (a Deployment of your own) or repository (pods that Trimtab makes), not both",
            ),
            (
                "!has(self.routing) || has(self.targetRef)",
                "routing belongs to a fleet with targetRef; a managed fleet has its own gateway",
            ),
            # As a rule, because the schema's `minimum` compares whole numbers as whole numbers, and lets 0 pass.
            (
                "double(self.capacityPerReplica) > 0.0",
                "capacityPerReplica must be greater than 0: measure what one replica serves",
            ),
            ("self.model == oldSelf.model", "model cannot be changed: make another ModelFleet for another model"),
            (
                "has(self.targetRef) == has(oldSelf.targetRef)",
                "a fleet cannot change between targetRef and managed: make another one",
            ),
            (
                "!has(self.targetRef) || self.targetRef.name.contains('{version}') || self.version == oldSelf.version",
                "version cannot change while targetRef.name names a single Deployment: put {version} into the name",
            ),
        )
    )
    model: str = Field(
        max_length=128, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", description="Name of the model in the repository."
    )
    version: int = Field(1, ge=1, le=999_999, description="Version that should serve. Changing it is a release.")
    repository: Repository | None = Field(None, description=Repository.__doc__)
    target_ref: TargetRef | None = Field(None, description=TargetRef.__doc__)
    routing: Routing | None = Field(None, description=Routing.__doc__)
    replicas: Replicas = Field(Replicas(), description=Replicas.__doc__)
    capacity_per_replica: float = Field(
        gt=0, le=1e9, description="Requests per second that one replica serves within the SLO: measure it."
    )
    slo: Slo = Field(Slo(), description=Slo.__doc__)
    resources: Resources = Field(Resources(), description=Resources.__doc__)
    gpu: Gpu | None = Field(None, description=Gpu.__doc__)
    scheduling: Scheduling = Field(Scheduling(), description=Scheduling.__doc__)
    gateway: Gateway = Field(Gateway(), description=Gateway.__doc__)
    scaling: Scaling = Field(Scaling(), description=Scaling.__doc__)
    rollout: Rollout = Field(Rollout(), description=Rollout.__doc__)
    remediation: Remediation = Field(Remediation(), description=Remediation.__doc__)
    schedule: list[ScheduleEntry] = Field([], max_length=50, description="Windows with other bounds for replicas.")
    freezes: list[Freeze] = Field([], max_length=50, description="Windows in which no release begins.")
    override: Override | None = Field(None, description=Override.__doc__)
    paused: bool = Field(False, description="Nothing is done; what would be done is said.")
    dry_run: bool = Field(False, description="As paused, but marked as a dry run: for watching Trimtab decide.")

    def deployment_name(self, fleet_name: str, version: int) -> str:
        """The Deployment of a version."""
        if self.target_ref is None:
            return f"{fleet_name}-v{version}"
        return self.target_ref.name.replace("{version}", str(version))

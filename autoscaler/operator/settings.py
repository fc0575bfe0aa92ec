"""How the operator runs: the section `operator`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from trimtab.settings import Section


class OperatorSettings(Section, name="operator"):
    """Scope, images, leadership and pace."""

    namespace: str = Field(
        "", description="The one namespace whose ModelFleets are looked after. Empty: all, which needs a ClusterRole."
    )
    instance: str = Field(
        "",
        max_length=57,
        description="Only ModelFleets whose label trimtab.dev/operator has this value are looked after. Empty: only those "
        "without the label. So a newer operator can be tried on a few fleets beside the one that runs.",
    )
    serving_image: str = Field("trimtab-serving:dev", description="Image of Triton replicas and Envoy where a fleet names none.")
    core_image: str = Field("trimtab-core:dev", description="Image of the gateway's sidecar.")
    lease_name: str = Field("trimtab-operator", description="Name of the Lease that says which operator leads.")
    lease_namespace: str = Field("", description="Its namespace. Empty: the operator's own.")
    lease_seconds: float = Field(
        7.0, ge=2, description="A leader that did not renew for this long is replaced, in seconds. 7: takeover within 10 s."
    )
    renew_seconds: float = Field(
        5.5,
        ge=1,
        description="A leader that could not renew for this long acts no more, in seconds. Under lease_seconds: two never act.",
    )
    retry_seconds: float = Field(1.0, gt=0, description="Pause between two looks at the Lease, in seconds.")
    step_seconds: float = Field(
        1.0,
        gt=0,
        description="Pause between two steps of a fleet of which nothing new is heard, in seconds. News are acted on at once.",
    )
    hasty_seconds: float = Field(
        0.2, ge=0, description="Least pause between two steps of one fleet, in seconds, except for findings and releases."
    )
    memory_seconds: float = Field(
        10.0, ge=0, description="How often memory that no act depends on is written to a fleet's status, in seconds."
    )
    memory_writes_per_second: float = Field(
        20.0,
        gt=0,
        description="Most of those writes of all fleets together, per second: over 200 fleets each is written less often.",
    )
    workers: int = Field(8, ge=1, le=64, description="Threads that take steps; they mostly wait for the API server.")
    drain_seconds: float = Field(
        120.0, ge=0, description="How long a deleted fleet may take to drain before its finalizer goes, in seconds."
    )

    @model_validator(mode="after")
    def _never_two(self) -> Self:
        if self.renew_seconds + self.retry_seconds / 2 >= self.lease_seconds:
            raise ValueError("renew_seconds must be under lease_seconds by more than half of retry_seconds, else two could act")
        return self

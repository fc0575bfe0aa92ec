"""The events of a scenario and the faults they bring, as a scenario file may write them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

from embedded.units import Duration, PositiveDuration, Share

EventKind = Literal["surge", "release", "replica_fault", "telemetry_outage"]
VersionFaultKind = Literal["slow", "failing", "wrong", "crashing", "leaking"]
ReplicaFaultKind = Literal["hang", "slow", "crash", "gpu"]

LASTING: frozenset[str] = frozenset({"surge", "telemetry_outage"})
"""The kinds of event that last a while (`for`), so that something can be expected `during` them."""


class Part(BaseModel):
    """A mapping of the file: its keys are the fields (`for_` is `for`), anything else is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Surge(Part):
    """Arrivals are multiplied by `factor`."""

    factor: float = Field(gt=0, le=100, strict=False)
    for_: PositiveDuration = Field(alias="for")


Slowness = Annotated[PositiveDuration, Field(le=60)]
"""What a fault adds to each batch: at most a minute, as the served model takes it."""
FaultyShare = Annotated[Share, Field(gt=0)]
"""The share of batches or answers that a fault hits: of none would be no fault."""


def _parameters(given: dict[str, object], kind: str, needed: dict[str, str]) -> None:
    want = needed.get(kind)
    for name, value in given.items():
        if value is not None and name != want:
            raise ValueError(f"a {kind} fault takes no {name!r}")
        if value is None and name == want:
            raise ValueError(f"a {kind} fault needs {name!r}")


class VersionFault(Part):
    """What is wrong with a released version: `slow` needs `by`, `failing` and `wrong` need `share`."""

    kind: VersionFaultKind
    by: Slowness | None = None
    share: FaultyShare | None = None

    @model_validator(mode="after")
    def _fitting(self) -> VersionFault:
        _parameters({"by": self.by, "share": self.share}, self.kind, {"slow": "by", "failing": "share", "wrong": "share"})
        return self


class Release(Part):
    """A new version is released; without a fault it is a good one."""

    version: StrictInt = Field(ge=1)
    fault: VersionFault | None = None


class ReplicaFault(Part):
    """One replica of the stable pool goes wrong: the seed picks it, unless `replica` names it."""

    kind: ReplicaFaultKind
    by: Slowness | None = None
    replica: str | None = None

    @model_validator(mode="after")
    def _fitting(self) -> ReplicaFault:
        _parameters({"by": self.by}, self.kind, {"slow": "by"})
        return self


class TelemetryOutage(Part):
    """The scrapes of these targets fail: `all`, or one name, or a list of names."""

    targets: str | list[str] = Field(default="all", min_length=1)
    for_: PositiveDuration = Field(alias="for")


class Event(Part):
    """Something that happens at a time: exactly one kind."""

    at: Duration
    surge: Surge | None = None
    release: Release | None = None
    replica_fault: ReplicaFault | None = None
    telemetry_outage: TelemetryOutage | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Event:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"an event is one of {', '.join(_KINDS)}; this has {' and '.join(given) or 'none'}")
        return self

    @property
    def kind(self) -> EventKind:
        """Which kind of event this is."""
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)

    @property
    def lasts(self) -> float:
        """Seconds it goes on, 0 for what happens at once."""
        if self.surge is not None:
            return self.surge.for_
        return self.telemetry_outage.for_ if self.telemetry_outage is not None else 0.0


_KINDS: tuple[EventKind, ...] = ("surge", "release", "replica_fault", "telemetry_outage")

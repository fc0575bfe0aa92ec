"""A scenario file: the fleet, its traffic, timed events and what is expected of the run. Reading one, and finding one.

A file that says anything else is refused with file and line. The files in `embedded/scenarios/` are examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, StringConstraints, model_validator

from embedded.events import LASTING, Event, Part
from embedded.expectations import Expectation
from embedded.units import Duration, PositiveDuration, Rate, Share
from serving_stack.traffic.recorded import Trace
from trimtab import yamlfile
from trimtab.errors import SettingsError
from trimtab.messages import FleetSpec, Slo

FOLDER = Path(__file__).parent / "scenarios"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]


class Replicas(Part):
    """Bounds of the fleet."""

    min: StrictInt = Field(ge=1, le=16)
    max: StrictInt = Field(ge=1, le=16)

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self


class SloPart(Part):
    """What users are promised."""

    p99: PositiveDuration = 0.25
    errors: Share = 0.01


class Fleet(Part):
    """The fleet that is served. `capacity` is what one replica serves within the SLO (see `Scenario.capacity`)."""

    model: Name
    version: StrictInt = Field(default=1, ge=1)
    capacity: Rate | None = None
    replicas: Replicas
    slo: SloPart = SloPart()


class Segment(Part):
    """Traffic from `at` until the next segment or the end: a recorded trace sped up to `rate` on average, or drawn arrivals."""

    at: Duration
    rate: Rate
    trace: Trace | None = None
    arrivals: Literal["poisson", "constant"] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Segment:
        if self.trace is not None and self.arrivals is not None:
            raise ValueError("give either a trace or arrivals, not both")
        return self


class Scenario(Part):
    """A whole scenario. Times are scenario times: zero is when the warm-up is over and the clock starts."""

    name: Name
    seed: StrictInt = Field(default=1, ge=0)
    duration: PositiveDuration
    warmup: Annotated[Duration, Field(ge=40, le=600)] = 45.0
    """Traffic before time zero, on which the learned detectors are trained: at least 40 s, since fewer teach them too little."""
    fleet: Fleet
    traffic: list[Segment] = Field(min_length=1)
    events: list[Event] = []
    expect: list[Expectation] = Field(min_length=1)

    @property
    def capacity(self) -> float:
        """Requests per second that one replica serves within the SLO.

        Unless the file says it, the fleet is taken to be provisioned for its initial traffic with a third to spare.
        """
        return self.fleet.capacity or 1.5 * self.traffic[0].rate / self.fleet.replicas.min

    def spec(self) -> FleetSpec:
        """The fleet as its owner wants it at the start."""
        fleet = self.fleet
        return FleetSpec(
            fleet=fleet.model,
            model=fleet.model,
            version=fleet.version,
            min_replicas=fleet.replicas.min,
            max_replicas=fleet.replicas.max,
            slo=Slo(p99_seconds=fleet.slo.p99, error_ratio=fleet.slo.errors),
            capacity_per_replica=self.capacity,
        )


Loc = tuple[str | int, ...]


def contradictions(scenario: Scenario) -> Iterator[tuple[Loc, str]]:
    """What is wrong between the parts of a scenario, each with its place in the file."""
    if scenario.traffic[0].at != 0:
        yield ("traffic", 0, "at"), "the first traffic must start at 0s"
    for i, (before, segment) in enumerate(zip(scenario.traffic, scenario.traffic[1:], strict=False), 1):
        if segment.at <= before.at:
            yield ("traffic", i, "at"), "must be later than the traffic before it"
    for i, segment in enumerate(scenario.traffic):
        if segment.at >= scenario.duration:
            yield ("traffic", i, "at"), f"is not before the end of the scenario ({scenario.duration:g}s)"
    released = False
    for i, event in enumerate(scenario.events):
        if event.at >= scenario.duration:
            yield ("events", i, "at"), f"is not before the end of the scenario ({scenario.duration:g}s)"
        if event.release is not None:
            if not released and event.release.version == scenario.fleet.version:
                yield ("events", i, "release", "version"), f"version {event.release.version} already runs from the start"
            released = True
    for i, expected in enumerate(scenario.expect):
        yield from _without_event(scenario, i, expected)


def _without_event(scenario: Scenario, i: int, expected: Any) -> Iterator[tuple[Loc, str]]:
    at: Loc = ("expect", i)
    happening = {event.kind for event in scenario.events}
    limits = getattr(expected, "replicas", None)
    during = getattr(expected, "during", None) or getattr(limits, "during", None)
    place = (*at, "replicas", "during") if limits is not None else (*at, "during")
    for key, kind, loc in (
        ("of", getattr(expected, "of", None), (*at, "of")),
        ("after", getattr(expected, "after", None), (*at, "after")),
        ("during", during, place),
    ):
        if kind is not None and kind not in happening:
            yield loc, f"{key}: there is no {kind} among the events"
        elif key == "during" and kind is not None and kind not in LASTING:
            yield loc, f"a {kind} does not last; use after, or during with {' or '.join(sorted(LASTING))}"
    version = getattr(expected, "version", None)
    known = {scenario.fleet.version} | {event.release.version for event in scenario.events if event.release is not None}
    if version is not None and version not in known:
        yield (*at, "version"), f"version {version} is never released"
    elif (
        version is not None
        and getattr(expected, "of", None) == "release"
        and not any(event.release is not None and event.release.version == version for event in scenario.events)
    ):
        yield (*at, "of"), f"there is no release of version {version} among the events"
    action = getattr(expected, "decision", None) or getattr(expected, "never", None)
    if getattr(expected, "direction", None) is not None and action != "scale":
        yield (*at, "direction"), f"only scale has a direction, {action} has none"


def read(path: Path) -> Scenario:
    """The scenario in this file; `SettingsError` names file, line and what is wrong, for everything that is wrong."""
    document = yamlfile.read(path)
    scenario = yamlfile.validate(document, Scenario)
    wrong = [f"{path}:{document.line(loc)}: {'.'.join(map(str, loc))}: {words}" for loc, words in contradictions(scenario)]
    if wrong:
        raise SettingsError("\n".join(wrong))
    return scenario


def shipped() -> dict[str, Path]:
    """The scenarios that ship with Trimtab, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find(name_or_file: str) -> Path:
    """The file of a shipped scenario, or the file itself; `SettingsError` lists the names when it is neither."""
    if name_or_file in shipped():
        return shipped()[name_or_file]
    path = Path(name_or_file)
    if path.is_file():
        return path
    raise SettingsError(f"no scenario {name_or_file!r}: it is neither a file nor one of {', '.join(shipped())}")


def about(path: Path) -> str:
    """The first comment of the file, which says in one line what the scenario shows."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""

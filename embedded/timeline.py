"""When what happens in a scenario: pure functions from a scenario to acts at times, and from a time to the acts then due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedded.events import Event
from embedded.scenario import Scenario

Edge = Literal["begin", "end"]


@dataclass(frozen=True)
class Act:
    """One thing to do or to announce at scenario time `at`: the begin of event number `index`, or the end of one that lasts."""

    at: float
    edge: Edge
    index: int
    event: Event
    words: str


def acts(scenario: Scenario) -> list[Act]:
    """All acts of a scenario in order of time; what would end after the scenario ends with it."""
    found: list[Act] = []
    for index, event in enumerate(scenario.events):
        found.append(Act(event.at, "begin", index, event, describe(event)))
        if event.lasts:
            end = min(event.at + event.lasts, scenario.duration)
            found.append(Act(end, "end", index, event, f"the {named(event)} is over"))
    return sorted(found, key=lambda act: (act.at, act.edge == "begin", act.index))


def due(pending: list[Act], now: float) -> tuple[list[Act], list[Act]]:
    """Splits acts in order of time into those due at scenario time `now` and those still pending."""
    split = next((i for i, act in enumerate(pending) if act.at > now), len(pending))
    return pending[:split], pending[split:]


def concerned(scenario: Scenario, kind: str, version: int | None = None) -> list[tuple[int, Event]]:
    """The events of a kind with their numbers, in order of time; of releases only those of `version`, when it is given."""
    found = [
        (i, event)
        for i, event in enumerate(scenario.events)
        if event.kind == kind and (event.release is None or version is None or event.release.version == version)
    ]
    return sorted(found, key=lambda pair: pair[1].at)


def named(event: Event) -> str:
    """The kind of an event in words."""
    return event.kind.replace("_", " ")


def describe(event: Event) -> str:
    """What happens when this event begins, in words."""
    if (surge := event.surge) is not None:
        return f"traffic times {surge.factor:g} for {surge.for_:g} s"
    if (release := event.release) is not None:
        fault = release.fault
        if fault is None:
            return f"version {release.version} is released; it is a good one"
        more = (
            f" by {fault.by * 1000:g} ms"
            if fault.by
            else f" for {fault.share:.0%} of requests"
            if fault.share is not None
            else ""
        )
        return f"version {release.version} is released; it is {_FAULTY[fault.kind]}{more}"
    if (fault_ := event.replica_fault) is not None:
        more = f" by {fault_.by * 1000:g} ms" if fault_.by else ""
        return f"{fault_.replica or 'a replica'} {_SICK[fault_.kind]}{more}"
    outage = event.telemetry_outage
    assert outage is not None
    targets = outage.targets if isinstance(outage.targets, str) else ", ".join(outage.targets)
    return f"no telemetry from {'any target' if targets == 'all' else targets} for {outage.for_:g} s"


_FAULTY = {"slow": "slow", "failing": "failing", "wrong": "wrong", "crashing": "crashing", "leaking": "leaking memory"}
_SICK = {"hang": "hangs", "slow": "becomes slow", "crash": "crashes", "gpu": "loses its GPU (recorded telemetry of an XID 79)"}

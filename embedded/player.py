"""Plays the events of a scenario on a running stack at their times. The traffic, surges included, was planned before."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from embedded.events import Event, ReplicaFaultKind, VersionFault
from embedded.recorder import Recorder
from embedded.scenario import Scenario
from embedded.timeline import Act, acts, due
from serving_stack.fault import Fault
from trimtab.errors import Missing, TrimtabError

LEAK_BYTES_PER_REQUEST = 1_000_000
"""What a leaking version keeps per request: at 20 requests/s a gigabyte in under a minute, as fast as a real leak that pages."""

_TICK_SECONDS = 0.05


class Actors(Protocol):
    """What a stack must be able to do for a scenario (`embedded.stack.Stack` can)."""

    def release(self, version: int, fault: Fault | None = None) -> None:
        """Puts a version with this fault into the model repository and says that the owner wants it."""

    def inject(self, kind: ReplicaFaultKind, replica: str, seconds: float = ...) -> None:
        """Makes one replica go wrong."""

    def serving(self, version: int | None = None) -> list[str]:
        """Names of the replicas in traffic, of one version or (None) of the stable pool."""

    def telemetry_outage(self, which: str | Sequence[str], seconds: float) -> list[str]:
        """Makes scrapes fail for a time; the names of the targets that are hit."""


class Player:
    """Plays one scenario once. `trouble` collects, in words, the events that could not be brought about."""

    def __init__(self, scenario: Scenario, seed: int, actors: Actors, recorder: Recorder) -> None:
        self._scenario, self._seed, self._actors, self._recorder = scenario, seed, actors, recorder
        self.trouble: list[str] = []

    def play(self, zero: float, stop: threading.Event) -> None:
        """Plays from unix time `zero` on and returns at the end of the scenario, or soon after `stop` is set."""
        pending = acts(self._scenario)
        while not stop.is_set():
            now = time.time() - zero
            ready, pending = due(pending, now)
            for act in ready:
                self._play(act)
            if now >= self._scenario.duration:
                return
            wake = min(pending[0].at if pending else self._scenario.duration, self._scenario.duration)
            stop.wait(min(max(wake - (time.time() - zero), 0.0), _TICK_SECONDS * 10))

    def _play(self, act: Act) -> None:
        words = act.words
        try:
            if act.edge == "begin" and act.event.replica_fault is not None:
                replica = act.event.replica_fault.replica or self._victim(act.index)
                words = words.replace("a replica", replica, 1)
                self._note(act, words, replica=replica)
                self._break(act.event, replica)
                return
            self._note(act, words)
            if act.edge == "begin":
                self._act(act.event)
        except TrimtabError as error:
            said = f"could not play {act.event.kind} at {act.event.at:g} s ({words}): {error}"
            self.trouble.append(said)
            self._recorder.note("demo", said)

    def _note(self, act: Act, words: str, **detail: object) -> None:
        self._recorder.note("scenario", words, event=act.index, edge=act.edge, event_kind=act.event.kind, **detail)

    def _act(self, event: Event) -> None:
        if event.release is not None:
            self._actors.release(event.release.version, version_fault(event.release.fault))
        elif event.telemetry_outage is not None:
            self._actors.telemetry_outage(event.telemetry_outage.targets, event.telemetry_outage.for_)

    def _break(self, event: Event, replica: str) -> None:
        fault = event.replica_fault
        assert fault is not None
        if fault.by is None:
            self._actors.inject(fault.kind, replica)
        else:
            self._actors.inject(fault.kind, replica, fault.by)

    def _victim(self, index: int) -> str:
        name = victim(self._actors.serving(), self._seed, index)
        if name is None:
            raise Missing("the stable pool has no replica in traffic")
        return name


def victim(serving: Sequence[str], seed: int, index: int) -> str | None:
    """The replica that event number `index` hits: the seed picks one of these; None when there is none."""
    return random.Random(f"{seed}:{index}").choice(sorted(serving)) if serving else None


def version_fault(fault: VersionFault | None) -> Fault | None:
    """A scenario's version fault as the served model knows it."""
    if fault is None:
        return None
    leak = LEAK_BYTES_PER_REQUEST if fault.kind == "leaking" else None
    return Fault(kind=fault.kind, seconds=fault.by, share=fault.share, bytes_per_request=leak)

"""Follows the topics in a thread and answers for any fleet."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from autoscaler.keda import demand
from autoscaler.keda.demand import Fleet, Wanted
from autoscaler.keda.metadata import Trigger
from autoscaler.settings import AutoscaleSettings
from trimtab.bus import Bus, Consumer
from trimtab.errors import Missing, Unavailable
from trimtab.messages import FLEETS, TELEMETRY, FleetSpec, Forgotten, Snapshot

log = logging.getLogger("trimtab.keda")

_POLL_SECONDS = 0.25


class Reader:
    """What is known of all fleets. `clock` gives unix seconds. Use as a context manager."""

    def __init__(self, bus: Bus, settings: AutoscaleSettings, clock: Callable[[], float] = time.time) -> None:
        self._bus, self._settings, self._clock = bus, settings, clock
        self._fleets: dict[str, Fleet] = {}
        self._lock = threading.Lock()
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="keda-reader", daemon=True)
        self._problem: str | None = None

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def wanted(self, trigger: Trigger) -> Wanted:
        """What the demand of the trigger's fleet asks for now. Raises `Missing` or `Unavailable`."""
        with self._lock:
            fleet, known = self._fleets.get(trigger.fleet), sorted(name for name, each in self._fleets.items() if each.spec)
        if self._problem is not None:
            raise Unavailable(f"the demand of fleet '{trigger.fleet}' is not known: {self._problem}")
        if not self._ready.is_set():
            raise Unavailable("the topics are not read yet")
        try:
            return demand.wanted(fleet or Fleet(), trigger, self._clock(), self._settings)
        except Missing as error:
            names = ", ".join(known[:10]) or "none"
            raise Missing(f"{error}; known fleets: {names}") from error

    def _run(self) -> None:
        pause = self._settings.retry_seconds
        while not self._stop.is_set():
            try:
                self._follow()
                pause = self._settings.retry_seconds
            except Unavailable as error:
                if self._problem is None:
                    log.warning("%s", error)
                self._problem = str(error)
                self._stop.wait(pause)
                pause = min(pause * 2, self._settings.retry_limit_seconds)

    def _follow(self) -> None:
        specs = telemetry = None
        try:
            specs = self._bus.consumer([FLEETS], group=None, start="earliest", forgotten=True)
            telemetry = self._bus.consumer([TELEMETRY], group=None, start="latest")
            for record in self._bus.read_all([FLEETS]):
                self._take(record.message)
            self._problem = None
            self._ready.set()
            while not self._stop.is_set():
                self._poll(specs, 0.0)
                self._poll(telemetry, _POLL_SECONDS)
        finally:
            for each in (specs, telemetry):
                if each is not None:
                    each.close()

    def _poll(self, consumer: Consumer, timeout: float) -> None:
        for record in consumer.poll(timeout):
            self._take(record.message)

    def _take(self, message: object) -> None:
        if isinstance(message, Forgotten):
            with self._lock:
                self._fleets.pop(message.fleet, None)
            return
        if not isinstance(message, FleetSpec | Snapshot) or (isinstance(message, Snapshot) and message.role != "gateway"):
            return
        with self._lock:
            before = self._fleets.get(message.fleet, Fleet())
            if isinstance(message, FleetSpec):
                self._fleets[message.fleet] = demand.with_spec(before, message)
            else:
                self._fleets[message.fleet] = demand.with_snapshot(before, message, self._clock(), self._settings)

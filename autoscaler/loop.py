"""The shell around the policy: reads topics, observes the fleet, takes a step, applies the plan, publishes and remembers.

Order within a step, so that a kill at any point neither repeats nor forgets an act: write what was decided to the state store,
apply the plan (idempotent), publish, commit offsets, write that it is published.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from autoscaler import measures, statefile
from autoscaler.actuators.base import Actuator
from autoscaler.policy import step
from autoscaler.reading import TOPICS, advanced, fresh, inputs
from autoscaler.settings import AutoscaleSettings
from trimtab import tracing
from trimtab.bus import Bus, Record
from trimtab.errors import SettingsError, Unavailable
from trimtab.messages import DECISIONS, STATES, Decision, Finding, FleetPlan, FleetSpec, FleetState, Snapshot, stable_id

log = logging.getLogger("trimtab.autoscaler")

_TRACES_KEPT = 1000
_WAITING_MOST = 20_000


class Autoscaler:
    """One fleet's autoscaler. `clock` gives unix seconds. Use `run`, or `once` and `close`."""

    def __init__(
        self,
        bus: Bus,
        actuator: Actuator,
        fleet: str,
        settings: AutoscaleSettings,
        state: Path | statefile.Store | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._actuator, self._fleet, self._settings = actuator, fleet, settings
        self._store = statefile.FileStore(state, fleet) if state is None or isinstance(state, Path) else state
        self._clock = clock
        self._saved = self._store.load()
        self._producer = bus.producer()
        self._consumer = bus.consumer(TOPICS, group=f"trimtab-autoscaler-{fleet}", start="earliest")
        self._waiting: list[Record] = []
        self._traces: dict[str, tuple[float, dict[str, bytes]]] = {}
        self._page: dict[str, bytes] = {}  # the trace of the newest page of the gateway: arrivals and canaries are read from it
        self._away_since: float | None = None
        self._tried: FleetPlan | None = None
        self._try_at = 0.0
        self._pause = settings.retry_seconds
        self._queued: statefile.Saved | None = None

    @property
    def saved(self) -> statefile.Saved:
        """What would be found after a restart now."""
        return self._saved

    def configure(self, settings: AutoscaleSettings) -> None:
        """Decides by other settings from the next step on."""
        self._settings = settings

    def run(self, stop: threading.Event) -> None:
        """Steps until `stop` is set. What is outside and away is waited for, with growing pauses; a bug is not caught."""
        pause = self._settings.retry_seconds
        while not stop.is_set():
            try:
                self.once(self._settings.interval_seconds)
                pause = self._settings.retry_seconds
            except Unavailable as error:
                log.warning("%s; trying again in %.0f s", error, pause)
                stop.wait(pause)
                pause = min(pause * 2, self._settings.retry_limit_seconds)
        self.close()

    def close(self) -> None:
        """Leaves the group; the state file says where to go on."""
        self._consumer.close()
        self._producer.close()

    def once(self, timeout: float) -> list[Decision]:
        """Reads for up to `timeout` seconds (a finding or a spec ends the wait), takes a step, and returns what was decided.

        Raises `Unavailable` when the bus or the state store is away; nothing is lost then.
        """
        self._publish_rest()
        self._read(timeout)
        began = time.perf_counter()
        state = self._observe()
        if state is None:
            return []
        now = self._clock()
        consumed = advanced(self._saved.consumed, self._waiting)
        state = msgspec.structs.replace(state, time=now, consumed=consumed)
        result = step(self._saved.memory, inputs(state, fresh(self._waiting, self._saved.consumed)), now, self._settings)
        self._save(memory=result.memory, consumed=consumed, unpublished=result.decisions, observed=state)
        self._waiting = []
        decisions = self._apply(result.plan, result.decisions, began)
        self._save(unpublished=decisions)
        self._publish_rest()
        measures.STEP_SECONDS.observe(time.perf_counter() - began)
        return decisions

    def _read(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        if len(self._waiting) > _WAITING_MOST:
            time.sleep(timeout)  # the fleet cannot be observed for long: what is not read is safe on the bus
            return
        while True:
            records = self._consumer.poll(max(0.0, end - time.monotonic()))
            for record in fresh(records, self._saved.consumed):
                self._waiting.append(record)
                if isinstance(record.message, Finding):
                    self._traces[record.message.id] = (record.message.time, record.headers)
                elif isinstance(record.message, Snapshot) and record.message.role == "gateway":
                    self._page = record.headers
            while len(self._traces) > _TRACES_KEPT:
                del self._traces[next(iter(self._traces))]
            urgent = any(isinstance(record.message, (Finding, FleetSpec)) for record in records)
            if urgent or time.monotonic() >= end:
                return

    def _observe(self) -> FleetState | None:
        try:
            state = self._actuator.observe(self._fleet)
        except (Unavailable, SettingsError) as error:
            measures.ACTUATOR_FAILURES.labels("observe").inc()
            if self._away_since is None:
                self._away_since = self._clock()
                self._say_away(str(error))
            return None
        if self._away_since is not None:
            log.info("the actuator answers again after %.1f s", self._clock() - self._away_since)
            self._away_since = None
        measures.show(state)
        return state

    def _say_away(self, why: str) -> None:
        """An outage of the actuator is no step of the policy, and a replay passes it over; it is said all the same."""
        now = self._clock()
        decision = Decision(
            id=stable_id(self._fleet, "actuator", self._away_since),
            fleet=self._fleet,
            time=now,
            action="hold",
            because=["actuator_away"],
            outcome="failed",
            reason=f"the fleet cannot be observed, nothing is decided: {why}",
        )
        self._save(unpublished=[*self._saved.unpublished, decision])
        self._publish_rest()

    def _apply(self, plan: FleetPlan | None, decisions: list[Decision], began: float) -> list[Decision]:
        """Applies the plan if it is new or due again; returns the decisions with their outcomes, earlier failures included."""
        if plan is None:
            settled, self._tried = self._saved.failed, None
            self._save(failed=[])
            return [*self._finished(settled, None, began), *self._finished(decisions, None, began)]
        if plan == self._tried and self._clock() < self._try_at:
            return decisions
        error = self._put(plan)
        acts = [decision for decision in decisions if decision.outcome == "applied"]
        if error is None:
            settled = self._saved.failed
            self._save(failed=[])
            return [*self._finished(settled, None, began), *self._finished(decisions, None, began)]
        self._save(failed=[*self._saved.failed, *acts])
        return self._finished(decisions, error, began)

    def _put(self, plan: FleetPlan) -> str | None:
        self._pause = (
            min(self._pause * 2, self._settings.retry_limit_seconds) if plan == self._tried else self._settings.retry_seconds
        )
        self._tried, self._try_at = plan, self._clock() + self._pause
        try:
            self._actuator.apply(plan)
        except Unavailable as error:
            measures.ACTUATOR_FAILURES.labels("apply").inc()
            return str(error)
        except SettingsError as error:
            # Trying again at once does not make it valid; another plan does.
            measures.ACTUATOR_FAILURES.labels("apply").inc()
            self._try_at = self._clock() + self._settings.retry_limit_seconds
            return str(error)
        return None

    def _finished(self, decisions: list[Decision], error: str | None, began: float) -> list[Decision]:
        took = time.perf_counter() - began
        done = []
        for decision in decisions:
            if decision.outcome != "applied":
                done.append(decision)
            elif error is None:
                done.append(msgspec.structs.replace(decision, took=took))
            else:
                words = f"{decision.reason}; not accepted, tried again: {error}"
                done.append(msgspec.structs.replace(decision, outcome="failed", reason=words, took=took))
        return done

    def _publish_rest(self) -> None:
        """Publishes the observation and the decisions that are not on the bus yet; commits when they are."""
        saved = self._saved
        if saved.observed is None and not saved.unpublished:
            return
        if self._queued is not saved:
            self._queue(saved)
            self._queued = saved
        self._producer.flush()
        if not self._waiting:  # a commit covers all that was read
            self._consumer.commit()
        for decision in saved.unpublished:
            measures.count(decision)
            log.info("%s %s: %s", decision.action, decision.outcome, decision.reason)
        self._save(unpublished=[], observed=None)

    def _queue(self, saved: statefile.Saved) -> None:
        if saved.observed is not None:
            self._producer.send(STATES, saved.observed)
        for decision in saved.unpublished:
            found, headers = self._parent(decision)
            with tracing.span(
                "decide and apply", headers, action=decision.action, outcome=decision.outcome, decision=decision.id
            ):
                self._producer.send(DECISIONS, decision, tracing.headers())
            if found is not None and decision.outcome == "applied":
                measures.ACT_AFTER_SECONDS.observe(max(0.0, self._clock() - found))

    def _parent(self, decision: Decision) -> tuple[float | None, dict[str, bytes]]:
        for cause in decision.because:
            if cause in self._traces:
                return self._traces[cause]
        return None, self._page

    def _save(self, **changes: object) -> None:
        saved = msgspec.structs.replace(self._saved, **changes)
        if saved != self._saved:
            self._store.save(saved)
            self._saved = saved

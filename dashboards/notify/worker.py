"""One receiver's worker: reads the incidents in a group of its own, delivers in order, and commits what is delivered.

The topic is the queue: while a receiver is away its group stays where it is, whatever becomes of this process, and no other
receiver notices. After a kill, what was accepted but neither logged nor committed is sent once more under the same id.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from dashboards.notify import measures, pace
from dashboards.notify.delivery import Answer, Sender
from dashboards.notify.settings import IncidentSettings, Receiver
from dashboards.notify.voices import Voice, voice_of, wanted
from trimtab import tracing
from trimtab.bus import Bus, Consumer, Producer, Record
from trimtab.errors import Unavailable
from trimtab.messages import INCIDENTS, NOTIFY_DEAD, NOTIFY_SENT, Delivery, IncidentUpdate

log = logging.getLogger("trimtab.notify")

_POLL_SECONDS = 0.5
_READ_AHEAD = 2000
_REMEMBERED = 10_000
_KEEP_ALIVE_SECONDS = 20.0
"""A consumer that does not poll for minutes is taken for dead; while a receiver is waited for, it polls this often."""


class Worker:
    """Serves one receiver until `stop` is set. `clock` gives unix seconds."""

    def __init__(self, bus: Bus, receiver: Receiver, settings: IncidentSettings, stop: threading.Event,
                 clock: Callable[[], float] = time.time) -> None:  # fmt: skip
        self._bus, self._receiver, self._stop, self._clock = bus, receiver, stop, clock
        self._voice: Voice = voice_of(receiver, settings)
        self._sender = Sender(receiver)
        self._bucket = pace.Bucket.full(receiver.max_per_minute, time.monotonic())
        self._pending: deque[Record] = deque()
        self._done: OrderedDict[str, None] = OrderedDict()
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None

    def restore(self, updates: Sequence[IncidentUpdate], deliveries: Sequence[Delivery]) -> None:
        """Takes up what was published and delivered before this process."""
        mine = [each for each in deliveries if each.receiver == self._receiver.name]
        self._voice.restore([update for update in updates if wanted(self._receiver, update.incident)], mine)
        for each in mine:
            self._remember(each.id)

    def run(self) -> None:
        """Works until `stop`; the bus may come and go."""
        failures = 0
        while not self._stop.is_set():
            try:
                self._work()
                failures = 0
            except Unavailable as error:
                failures += 1
                log.warning("receiver %s: %s; trying again", self._receiver.name, error)
                self._let_go()
                self._stop.wait(pace.pause(failures, 0.5, 15.0, random.random()))
        self._let_go()
        self._sender.close()

    def _work(self) -> None:
        if self._consumer is None:
            self._producer = self._bus.producer()
            self._consumer = self._bus.consumer([INCIDENTS], group=f"trimtab-notify-{self._receiver.name}")
        if not self._pending:
            self._pending.extend(self._consumer.poll(_POLL_SECONDS))
        while self._pending and not self._stop.is_set():
            measures.WAITING.labels(self._receiver.name).set(len(self._pending))
            record = self._pending[0]
            update = record.message
            if isinstance(update, IncidentUpdate) and update.id not in self._done and wanted(self._receiver, update.incident):
                if not self._tell(record, update):
                    return
                self._consumer.commit(record)
            self._pending.popleft()
            if not self._pending:
                self._consumer.commit()
        measures.WAITING.labels(self._receiver.name).set(len(self._pending))
        self._say_again()

    def _tell(self, record: Record, update: IncidentUpdate) -> bool:
        """Delivers, or makes it a dead letter; False when it is to stop before either."""
        age = self._clock() - update.time
        if age > self._receiver.max_age_seconds:
            self._dead(update, 0, f"{age:.0f} s old when its turn came")
            return True
        with tracing.span("notify", record.headers, receiver=self._receiver.name, incident=update.incident.id):
            traced = {name: value.decode() for name, value in tracing.headers().items()}
            attempts, answer = self._try(update, traced)
        if answer is None:
            return False
        if answer.verdict == "delivered":
            thread = self._voice.delivered(update, answer)
            measures.AFTER_SECONDS.labels(self._receiver.name).observe(max(0.0, self._clock() - update.time))
            self._log(self._delivery(update, attempts, thread=thread))
        else:
            self._dead(update, attempts, answer.words)
        return True

    def _try(self, update: IncidentUpdate, headers: dict[str, str]) -> tuple[int, Answer | None]:
        """Attempts until one is conclusive or time is up; the answer is None when it is to stop."""
        began, attempts = time.monotonic(), 0
        while not self._stop.is_set():
            if wait := self._bucket.take(time.monotonic()):
                self._rest(wait)
                continue
            request = self._voice.request(update, self._clock())
            answer = self._sender.send(request.body, request.content_type, request.id, headers)
            attempts += 1
            measures.ATTEMPTS.labels(self._receiver.name, answer.verdict).inc()
            if answer.verdict != "again" or time.monotonic() - began >= self._receiver.give_up_seconds:
                return attempts, answer
            pause = pace.pause(attempts, self._receiver.retry_first_seconds, self._receiver.retry_limit_seconds, random.random())
            pause = max(pause, answer.wait or 0.0)
            log.warning("receiver %s: %s; again in %.1f s", self._receiver.name, answer.words, pause)
            self._rest(pause)
        return attempts, None

    def _rest(self, seconds: float) -> None:
        """Waits, and stays a member of its group meanwhile."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stop.wait(min(left, _KEEP_ALIVE_SECONDS)):
            if self._consumer is not None and len(self._pending) < _READ_AHEAD:
                self._pending.extend(self._consumer.poll(0))

    def _say_again(self) -> None:
        request = self._voice.again(self._clock())
        if request is not None:
            answer = self._sender.send(request.body, request.content_type, request.id)
            measures.ATTEMPTS.labels(self._receiver.name, answer.verdict).inc()
            if answer.verdict != "delivered":
                log.warning("receiver %s: what still fires could not be said again: %s", self._receiver.name, answer.words)

    def _dead(self, update: IncidentUpdate, attempts: int, reason: str) -> None:
        log.error("receiver %s: update %s is a dead letter: %s", self._receiver.name, update.id, reason)
        measures.DEAD.labels(self._receiver.name).inc()
        self._log(self._delivery(update, attempts, reason=reason))

    def _delivery(
        self, update: IncidentUpdate, attempts: int, *, reason: str | None = None, thread: str | None = None
    ) -> Delivery:
        return Delivery(
            fleet=update.fleet,
            receiver=self._receiver.name,
            id=update.id,
            incident=update.incident.id,
            time=self._clock(),
            attempts=attempts,
            dead=reason is not None,
            reason=reason,
            thread=thread,
            update=None if reason is None else update,
        )

    def _log(self, delivery: Delivery) -> None:
        """How it ended, on the bus before the commit. What was accepted is done even if the bus is away just now; a dead letter
        must be there first."""
        if not delivery.dead:
            self._remember(delivery.id)
        assert self._producer is not None
        self._producer.send(NOTIFY_DEAD if delivery.dead else NOTIFY_SENT, delivery, tracing.headers())
        self._producer.flush()
        self._remember(delivery.id)

    def _remember(self, id: str) -> None:
        self._done[id] = None
        while len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)

    def _let_go(self) -> None:
        self._pending.clear()
        if self._consumer is not None:
            self._consumer.close()
        if self._producer is not None:
            self._producer.close()
        self._consumer = self._producer = None

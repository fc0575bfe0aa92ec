"""The notifier: one grouper, and a worker for each receiver, each in a thread of its own."""

from __future__ import annotations

import logging
import threading

from dashboards.notify.grouper import Grouper, published
from dashboards.notify.settings import IncidentSettings, NotifySettings
from dashboards.notify.worker import Worker
from trimtab.bus import Bus
from trimtab.errors import Unavailable
from trimtab.messages import NOTIFY_SENT, Delivery

log = logging.getLogger("trimtab.notify")


class Notifier:
    """Runs until `stop` is set. Raises `SettingsError` at once when a receiver cannot be served as it is set."""

    def __init__(self, bus: Bus, incidents: IncidentSettings, notify: NotifySettings, stop: threading.Event) -> None:
        self._bus, self._stop = bus, stop
        self._grouper = Grouper(bus, incidents, stop)
        self._workers = {each.name: Worker(bus, each, incidents, stop) for each in notify.receivers}
        self._died: BaseException | None = None

    def run(self) -> None:
        """Returns after `stop`. A bug in one thread ends them all, loudly: a notifier that is half there is worse than none."""
        self._restore()
        threads = [threading.Thread(target=self._guarded, args=(self._grouper.run,), name="grouper")]
        for name, worker in self._workers.items():
            threads.append(threading.Thread(target=self._guarded, args=(worker.run,), name=f"receiver {name}"))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._died is not None:
            raise self._died

    def _guarded(self, work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            self._died = self._died or error
            self._stop.set()

    def _restore(self) -> None:
        """Waits for the bus, then tells each worker what was said before."""
        while not self._stop.is_set():
            try:
                self._bus.ensure_topics()
                updates = published(self._bus)
                sent = [record.message for record in self._bus.read_all([NOTIFY_SENT]) if isinstance(record.message, Delivery)]
            except Unavailable as error:
                log.warning("%s; trying again in 2 s", error)
                self._stop.wait(2)
                continue
            for worker in self._workers.values():
                worker.restore(updates, sent)
            return

"""The operator's process: candidates wait for the Lease with warm caches; the leader follows every ModelFleet."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from prometheus_client import Gauge

from autoscaler.actuators.kubernetes import KubernetesActuator
from autoscaler.actuators.kubernetes_cache import Cache
from autoscaler.actuators.kubernetes_pods import Templates
from autoscaler.operator import handlers
from autoscaler.operator.events import Herald
from autoscaler.operator.hub import Hub
from autoscaler.operator.lease import Lease
from autoscaler.operator.scheduler import Scheduler
from autoscaler.operator.settings import OperatorSettings
from autoscaler.operator.showing import say_invalid
from autoscaler.operator.tools import Tools
from autoscaler.operator.worker import Worker, created_at, forget
from autoscaler.settings import AutoscaleSettings
from trimtab.bus import COMPACTED, Bus
from trimtab.errors import SettingsError, Unavailable
from trimtab.kube import Kube, KubeError, fleet_name, fleet_path

log = logging.getLogger("trimtab.operator")

LEADS = Gauge("trimtab_operator_leads", "1 while this operator leads.")
FLEETS = Gauge("trimtab_operator_fleets", "ModelFleets that this operator follows.")
DROPPED = Gauge("trimtab_operator_dropped_records", "Records given up because a fleet's step did not take them.")


class Operator:
    """One candidate. `run` returns when `stop` is set or the leadership was lost; for another try, make another one."""

    def __init__(
        self,
        kube: Kube,
        bus: Bus,
        settings: OperatorSettings,
        base: AutoscaleSettings,
        identity: str,
        templates: Templates | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube, self._bus, self._settings, self._base, self._clock = kube, bus, settings, base, clock
        namespace = settings.lease_namespace or kube.namespace
        self.lease = Lease(
            kube,
            namespace,
            settings.lease_name,
            identity,
            lease=settings.lease_seconds,
            renew=settings.renew_seconds,
            retry=settings.retry_seconds,
        )
        self._scheduler = Scheduler(settings.workers, settings.hasty_seconds)
        self._cache = Cache(kube, settings.namespace or None, self._scheduler.wake, settings.instance)
        images = templates or Templates(serving_image=settings.serving_image, core_image=settings.core_image)
        self._actuator = KubernetesActuator(
            kube, self._cache, images, guard=self.lease.guard, term=lambda: self.lease.term, clock=clock
        )
        self._hub = Hub(bus, self._scheduler.wake)
        self._herald = Herald(kube)
        self._workers: dict[str, Worker] = {}
        self._uids: dict[str, str] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.ready = threading.Event()
        """Set once this operator leads and follows."""

    def run(self, stop: threading.Event) -> bool:
        """Leads when it can; returns whether it was asked to stop (False: the leadership was lost, start anew)."""
        self._cache.start()
        relay = threading.Thread(target=self._relay, args=(stop,), name="stop", daemon=True)
        relay.start()
        threads: list[threading.Thread] = []
        try:
            self.lease.run(self._over, lambda: threads.extend(self._lead()))
        finally:
            self._over.set()
            LEADS.set(0)
            self._scheduler.join()
            with self._lock:
                for worker in self._workers.values():
                    worker.close()
                self._workers.clear()
            # Nothing is decided any more and all is written: another may lead. What kopf still does meets the fence.
            self.lease.release()
            for thread in threads:
                thread.join(10.0)
            self._hub.join()
            if threads:
                self._herald.stop()
            self._cache.stop()
        return stop.is_set()

    @property
    def seen(self) -> bool:
        """Whether the cluster is seen: what a readiness probe asks."""
        return self._cache.synced and self._cache.problem is None

    def follow(self, namespace: str, name: str) -> None:
        """See `handlers.Follower`."""
        fleet_id = fleet_name(namespace, name)
        thing = self._cache.fleets.get(namespace, name)
        if thing is None:
            raise Unavailable("the ModelFleet is not in the cache yet")
        with self._lock:
            if self._over.is_set():
                return
            known = self._workers.get(fleet_id)
            if known is not None and self._uids[fleet_id] == thing["metadata"]["uid"]:
                self._scheduler.wake(fleet_id, True)
                return
        if known is not None:
            self.forget(namespace, name)
        try:
            fleet = self._actuator.fleet(fleet_id)
        except SettingsError as error:
            log.warning("%s: %s", fleet_id, error)
            self._scheduler.add(fleet_id, lambda: self._invalid(namespace, name))
            return
        with self._lock:
            worker = Worker(self._tools(), fleet, created_at(thing))
            self._workers[fleet_id], self._uids[fleet_id] = worker, fleet.uid
            FLEETS.set(len(self._workers))
        self._scheduler.add(fleet_id, worker.step)

    def drain(self, namespace: str, name: str) -> list[str]:
        """See `handlers.Follower`."""
        if self._over.is_set():
            raise Unavailable("this operator ends")
        fleet_id = fleet_name(namespace, name)
        if not self._scheduler.remove(fleet_id):
            return [f"a step of {fleet_id}"]
        left: list[str] = []
        try:
            if self._cache.fleets.get(namespace, name) is not None:
                left = self._actuator.remove(fleet_id)
        except SettingsError as error:
            log.warning("%s is removed without draining: %s", fleet_id, error)
        return left or self._withdraw(fleet_id)

    def _withdraw(self, fleet_id: str) -> list[str]:
        """Takes what the compacted topics say of the fleet back, so that who reads them anew does not take it for one that is."""
        producer = self._hub.producer()
        try:
            for topic in sorted(COMPACTED):
                producer.flush(producer.forget(topic, fleet_id))
        except Unavailable as error:
            log.warning("%s cannot be taken off the topics yet: %s", fleet_id, error)
            return ["its entry on the topics"]
        return []

    def forget(self, namespace: str, name: str) -> None:
        """See `handlers.Follower`."""
        fleet_id = fleet_name(namespace, name)
        self._scheduler.remove(fleet_id)
        with self._lock:
            worker = self._workers.pop(fleet_id, None)
            FLEETS.set(len(self._workers))
        if worker is not None:
            worker.close()
        self._actuator.forget(fleet_id)
        forget(fleet_id)

    def _invalid(self, namespace: str, name: str) -> float:
        """The task of a fleet whose spec cannot be meant: says so, and begins when it can."""
        fleet_id = fleet_name(namespace, name)
        try:
            self._actuator.fleet(fleet_id)
        except SettingsError as error:
            say_invalid(self._tools(), fleet_id, str(error))
            return 30.0
        threading.Thread(target=self.follow, args=(namespace, name), daemon=True).start()
        return 30.0

    def _tools(self) -> Tools:
        return Tools(self._kube, self._cache, self._actuator, self._hub, self._herald, self._settings, self._base, self._clock)

    def _lead(self) -> list[threading.Thread]:
        LEADS.set(1)
        self._herald.start()
        self._hub.start(self._over)
        self._scheduler.start(self._over)
        thread = threading.Thread(target=self._follow_all, name="kopf", daemon=True)
        thread.start()
        return [thread]

    def _follow_all(self) -> None:
        while not self._cache.synced and not self._over.is_set():
            self._over.wait(0.05)
        if self._over.is_set():
            return
        # What the leader before wrote last may not have come by the watch yet, and memory must not be older than its acts.
        self._read_all()
        # Those that are known begin at once; kopf tells of the rest, and of what comes and goes.
        for thing in self._cache.fleets.all():
            if "deletionTimestamp" not in thing["metadata"]:
                self.follow(thing["metadata"]["namespace"], thing["metadata"]["name"])
        self.ready.set()
        handlers.run(self._kube, self, self._settings, self._over, self._give_up)

    def _read_all(self) -> None:
        while not self._over.is_set():
            try:
                for thing in self._kube.get(fleet_path(self._settings.namespace or None))["items"]:
                    namespace, name = thing["metadata"]["namespace"], thing["metadata"]["name"]
                    if self._cache.fleets.get(namespace, name) is not None:
                        self._cache.fleets.put(thing)
                return
            except (Unavailable, KubeError) as error:
                log.warning("the ModelFleets cannot be listed: %s", error)
                self._over.wait(1.0)

    def _give_up(self, why: str) -> None:
        log.error("%s; this operator gives up its leadership", why)
        self._over.set()

    def _relay(self, stop: threading.Event) -> None:
        while not self._over.is_set():
            if stop.wait(0.2):
                self._over.set()

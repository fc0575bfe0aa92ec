"""`trimtab gateway-sync`: keeps Envoy's files in step with a ModelFleet's plan and its pods."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from serving_stack.gateway.files import write
from serving_stack.gateway.kubernetes import gateway_state, model_of, plan_of, replica_of, selector
from serving_stack.gateway.render import render
from serving_stack.gateway.settings import TOKENS, GatewaySettings, with_settings
from trimtab.errors import SettingsError
from trimtab.kube import Kube, fleet_name, fleet_path, path_of
from trimtab.kube_watch import Watcher
from trimtab.messages import FleetPlan

log = logging.getLogger(__name__)


class Sync:
    """Writes what the API server says. A plan that vanishes or cannot be read leaves the last one in force."""

    def __init__(self, kube: Kube, namespace: str, name: str, folder: Path, settings: GatewaySettings) -> None:
        self._namespace, self._name, self._folder, self._settings = namespace, name, folder, settings
        self._plan: FleetPlan | None = None
        self._seen: tuple[int, int] | None = None
        self._changed = threading.Event()
        changed = self._changed.set
        self._fleets = Watcher(kube, fleet_path(namespace), fields=f"metadata.name={name}", changed=changed)
        self._pods = Watcher(kube, path_of("pods", namespace), selector=selector(name), changed=changed)

    def run(self, stop: threading.Event) -> None:
        """Runs until `stop`. Raises Unavailable when the files cannot be written."""
        watchers = [self._fleets.start(), self._pods.start()]
        while not stop.is_set():
            if self._changed.wait(0.5) or self._tokens_changed():
                self._changed.clear()
                self._bring_up_to_date()
        for watcher in watchers:
            watcher.stop()

    def _tokens_changed(self) -> bool:
        """Whether the file with the tokens is another than when this was last asked."""
        folder, before = self._settings.access_folder, self._seen
        try:
            found = (folder / TOKENS).stat() if folder else None
            self._seen = (found.st_ino, found.st_mtime_ns) if found else None
        except OSError:
            self._seen = None
        return self._seen != before

    def _bring_up_to_date(self) -> None:
        if not (self._fleets.synced and self._pods.synced):
            return
        began = time.monotonic()
        try:
            fleet = self._fleets.get(self._namespace, self._name) or {}
            self._plan = plan_of(fleet) or self._plan
            replicas = [found for pod in self._pods.objects.values() if (found := replica_of(pod)) is not None]
            state = gateway_state(fleet_name(self._namespace, self._name), self._plan, replicas, model_of(fleet))
            state = with_settings(state, self._settings, open_to_others=True)
            written = write(self._folder, render(state, self._folder))
        except SettingsError as error:
            log.error("%s; the gateway keeps what it has", error)
            return
        if written:
            log.info("wrote %s in %.1f ms", ", ".join(written), 1000 * (time.monotonic() - began))

"""An autoscaler's state in its ModelFleet's ``status.memory``: JSON, compressed, base64."""

from __future__ import annotations

import base64
import logging
import random
import time
import zlib
from collections.abc import Callable

import msgspec

from autoscaler.actuators.kubernetes_cache import Cache
from autoscaler.actuators.kubernetes_status import StatusWriter
from autoscaler.statefile import STATE_SCHEMA, Saved
from trimtab.errors import Unavailable
from trimtab.kube import KubeError, fleet_name

log = logging.getLogger(__name__)

_LONGEST_BYTES = 16_000_000


def pack(saved: Saved) -> str:
    """As the status holds it."""
    return base64.b64encode(zlib.compress(msgspec.json.encode(saved), 6)).decode()


def unpack(text: str, fleet: str) -> Saved:
    """What `pack` made. Raises `ValueError` in words when it is not that, or is of another fleet or schema."""
    try:
        plain = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _LONGEST_BYTES)
        saved = msgspec.json.decode(plain, type=Saved)
    except (ValueError, zlib.error, msgspec.DecodeError) as error:
        raise ValueError(f"status.memory cannot be read: {error}") from error
    if saved.schema != STATE_SCHEMA or saved.fleet != fleet:
        raise ValueError(f"status.memory holds schema {saved.schema} of fleet '{saved.fleet}'")
    return saved


class StatusStore:
    """See `statefile.Store`. Written at once when an act depends on it, otherwise every `pause_seconds()`.

    `extra` gives further fields that go along with a write, so that what changes all the time costs no request of its own.
    """

    def __init__(
        self,
        writer: StatusWriter,
        cache: Cache,
        namespace: str,
        name: str,
        pause_seconds: Callable[[], float],
        extra: Callable[[Saved], dict[str, object]] = lambda _saved: {},
    ) -> None:
        self._writer, self._cache, self._pause, self._extra = writer, cache, pause_seconds, extra
        self._namespace, self._name = namespace, name
        self._written: Saved | None = None
        self._written_at = 0.0
        self.lost: str | None = None
        """Why what was remembered is not used; None when it is."""

    def load(self) -> Saved:
        """See `Store`. Memory that cannot be read is not used: what runs is taken over as it is."""
        fleet = fleet_name(self._namespace, self._name)
        thing = self._cache.fleets.get(self._namespace, self._name) or {}
        text = thing.get("status", {}).get("memory")
        if not text:
            return Saved(fleet=fleet)
        try:
            self._written = unpack(str(text), fleet)
        except ValueError as error:
            log.warning("%s: %s; what runs is taken over as it is", fleet, error)
            self.lost = str(error)
            return Saved(fleet=fleet)
        # After a takeover all fleets begin at once, and shall not all write at once ten seconds later.
        self._written_at = time.monotonic() - random.uniform(0.0, self._pause())
        return self._written

    def save(self, saved: Saved) -> None:
        """See `Store`. Decisions that were not written yet are written before anything is done about them."""
        if self._due(saved):
            self.flush(saved)

    def flush(self, saved: Saved) -> None:
        """Writes what is not written yet."""
        if saved == self._written:
            return
        try:
            self._writer.write(self._namespace, self._name, {"memory": pack(saved), **self._extra(saved)})
        except KubeError as error:
            raise Unavailable(f"the fleet's memory cannot be written: {error}") from error
        self._written, self._written_at = saved, time.monotonic()

    def _due(self, saved: Saved) -> bool:
        before = self._written
        if before is None:
            return True
        told = {decision.id for decision in before.unpublished}
        decided = any(decision.id not in told for decision in saved.unpublished)
        if decided or saved.failed != before.failed or saved.memory.spec != before.memory.spec:
            return True
        return time.monotonic() - self._written_at >= self._pause()

"""Publishes a release: the newest spec of a fleet with another version."""

from __future__ import annotations

import time

import msgspec

from trimtab.bus import Bus
from trimtab.errors import Missing, SettingsError
from trimtab.messages import FLEETS, FleetSpec, Forgotten


def newest_spec(bus: Bus, fleet: str, wait_seconds: float = 10.0) -> FleetSpec:
    """The newest spec of a fleet; raises `Missing` when the topic holds none."""
    consumer = bus.consumer([FLEETS], group=None, start="earliest", forgotten=True)
    found: FleetSpec | None = None
    end = time.monotonic() + wait_seconds
    try:
        while time.monotonic() < end:
            records = consumer.poll(0.5)
            for message in (record.message for record in records):
                if isinstance(message, Forgotten) and message.fleet == fleet:
                    found = None
                if isinstance(message, FleetSpec) and message.fleet == fleet and (found is None or message.time >= found.time):
                    found = message
            if found is not None and not records:
                return found
    finally:
        consumer.close()
    if found is None:
        raise Missing(f"there is no fleet '{fleet}' on {FLEETS}; publish its FleetSpec first")
    return found


def release(bus: Bus, fleet: str, version: int, now: float) -> FleetSpec:
    """Releases a version of a fleet; returns the spec that was published. A spec is always newer than the one it replaces."""
    if version < 1:
        raise SettingsError(f"version {version} is not a version: they start at 1")
    old = newest_spec(bus, fleet)
    spec = msgspec.structs.replace(old, version=version, time=max(now, old.time + 0.001))
    producer = bus.producer()
    try:
        producer.send(FLEETS, spec)
        producer.flush()
    finally:
        producer.close()
    return spec

"""The scaler's reader on a real broker: specs that were there before, telemetry from now on."""

from __future__ import annotations

import time
from typing import Any

import pytest

from autoscaler.keda.metadata import Trigger
from autoscaler.keda.reader import Reader
from autoscaler.settings import AutoscaleSettings
from trimtab.bus import BusSettings, connect
from trimtab.errors import Missing, Unavailable
from trimtab.messages import FLEETS, TELEMETRY, FleetSpec, Snapshot

pytestmark = pytest.mark.integration


def test_it_reads_what_the_fleet_wants_and_what_arrives(kafka: str) -> None:
    bus = connect(BusSettings(bootstrap=kafka))
    bus.ensure_topics()
    producer = bus.producer()
    producer.send(FLEETS, FleetSpec(fleet="prod_intent", model="intent", version=1, capacity_per_replica=40.0, max_replicas=8))
    producer.flush()
    trigger = Trigger("prod_intent")
    with Reader(bus, AutoscaleSettings()) as reader:
        refused = answered = ""
        counter, end = 0.0, time.monotonic() + 60
        while not answered and time.monotonic() < end:
            counter += 12.0  # 120 a second
            producer.send(TELEMETRY, page(counter))
            producer.flush()
            time.sleep(0.1)
            try:
                answered = str(reader.wanted(trigger).replicas)
            except Unavailable as error:
                refused = str(error)
        assert int(answered) >= 2 and refused
        with pytest.raises(Missing, match="known fleets: .*prod_intent"):
            reader.wanted(Trigger("prod_other"))
    producer.close()


def page(counter: float) -> Snapshot:
    series: dict[str, Any] = {
        'envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="prod_intent"}': counter,
        "envoy_server_uptime{}": counter,
    }
    return Snapshot(target="gw", fleet="prod_intent", role="gateway", time=time.time(), took=0.01, up=True, series=series)


def test_a_broker_that_is_away_is_said() -> None:
    bus = connect(BusSettings(bootstrap="127.0.0.1:1", timeout_seconds=0.5))
    with Reader(bus, AutoscaleSettings(retry_seconds=0.1)) as reader:
        end = time.monotonic() + 30
        words = ""
        while "127.0.0.1:1" not in words and time.monotonic() < end:
            with pytest.raises(Unavailable) as refused:
                reader.wanted(Trigger("prod_intent"))
            words = str(refused.value)
            time.sleep(0.05)
        assert "127.0.0.1:1" in words

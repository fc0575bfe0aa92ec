"""The scaler as KEDA meets it: a real gRPC channel, and a bus in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from autoscaler.keda import externalscaler_pb2 as pb
from autoscaler.keda import externalscaler_pb2_grpc as rpc
from autoscaler.keda.reader import Reader
from autoscaler.keda.service import serve
from autoscaler.settings import AutoscaleSettings
from trimtab.memory_bus import MemoryBus
from trimtab.messages import FLEETS, TELEMETRY, FleetSpec, Snapshot

FLEET = "prod_intent"


class Keda:
    """KEDA's side, and the world that the scaler reads of. Time stands still until a test moves it."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.bus.ensure_topics()
        self.now = 1_000_000.0
        self.counters: dict[str, float] = {}
        self.reader = Reader(self.bus, AutoscaleSettings(retry_seconds=0.05), lambda: self.now)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Keda:
        self.reader.__enter__()
        self._thread.start()
        assert self._up.wait(10)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub: Any = rpc.ExternalScalerStub(self.channel)  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self.reader.__exit__()

    def _serve(self) -> None:
        def started(port: int) -> None:
            self.port = port
            self._up.set()

        self._loop.run_until_complete(serve(self.reader, "127.0.0.1:0", self._stop, started))
        self._loop.close()

    def spec(self, **fields: Any) -> None:
        given: dict[str, Any] = {
            "fleet": FLEET,
            "model": "intent",
            "version": 1,
            "capacity_per_replica": 40.0,
            "max_replicas": 8,
            **fields,
        }
        self._send(FLEETS, FleetSpec(**given))

    def forget(self) -> None:
        producer = self.bus.producer()
        producer.forget(FLEETS, FLEET)
        producer.close()

    def page(self, gateway: str = "gw-a", requests: float = 0.0, error: str | None = None, fleet: str = FLEET) -> None:
        """A scrape of a gateway to which `requests` more have come."""
        self.counters[gateway] = self.counters.get(gateway, 0.0) + requests
        prefix = f'envoy_http_conn_manager_prefix="{fleet}"'
        series = {f"envoy_http_downstream_rq_total{{{prefix}}}": self.counters[gateway], "envoy_server_uptime{}": self.now}
        self._send(
            TELEMETRY,
            Snapshot(
                target=gateway,
                fleet=fleet,
                role="gateway",
                time=self.now,
                took=0.01,
                up=error is None,
                error=error,
                series={} if error else dict(series),
            ),
        )

    def serve(self, seconds: int, **rates: float) -> None:
        """Each gateway gets its rate for this long; names have a dash for an underscore."""
        for _ in range(seconds):
            self.now += 1.0
            for gateway, rate in rates.items():
                self.page(gateway.replace("_", "-"), rate)

    def ref(self, **metadata: str) -> Any:
        return pb.ScaledObjectRef(
            name="so", namespace="prod", scalerMetadata={"fleet": "intent", "scalerAddress": "x:1", **metadata}
        )

    def replicas(self, **metadata: str) -> float:
        self.settle()
        answer = self.stub.GetMetrics(pb.GetMetricsRequest(scaledObjectRef=self.ref(**metadata), metricName="m"), timeout=5)
        [value] = answer.metricValues
        assert value.metricName == "m" and value.metricValue == value.metricValueFloat
        return float(value.metricValueFloat)

    def refusal(self, call: str = "GetMetrics", **metadata: str) -> tuple[str, str]:
        """(status code, words) of a call that must fail."""
        self.settle()
        ref = self.ref(**metadata)
        with pytest.raises(grpc.RpcError) as refused:
            if call == "GetMetrics":
                self.stub.GetMetrics(pb.GetMetricsRequest(scaledObjectRef=ref), timeout=5)
            elif call == "StreamIsActive":
                list(self.stub.StreamIsActive(ref, timeout=5))
            else:
                getattr(self.stub, call)(ref, timeout=5)
        return refused.value.code().name, refused.value.details()

    def settle(self) -> None:
        """Until the reader has read all that was sent."""
        mark = f"mark-{time.monotonic_ns()}"
        for topic, message in (
            (FLEETS, FleetSpec(fleet=mark, model="m", version=1, capacity_per_replica=1.0)),
            (TELEMETRY, Snapshot(target=mark, fleet=mark, role="gateway", time=self.now, took=0.0, up=False)),
        ):
            self._send(topic, message)
        self.wait(lambda: (found := self.reader._fleets.get(mark)) is not None and found.spec and found.gateways)
        del self.reader._fleets[mark]

    @staticmethod
    def wait(condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)

    def _send(self, topic: str, message: Any) -> None:
        producer = self.bus.producer()
        producer.send(topic, message)
        producer.flush()


@pytest.fixture
def keda() -> Iterator[Keda]:
    with Keda() as keda:
        keda.wait(keda.reader._ready.is_set)
        yield keda

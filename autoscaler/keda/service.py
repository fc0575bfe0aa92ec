"""The gRPC service that KEDA calls, with health and reflection.

Its health says that the process works, not that data is fresh: KEDA's fallback counts errors of GetMetrics, and a scaler that is
taken out of its Service could not even give those.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import Counter

from autoscaler.keda import externalscaler_pb2 as pb
from autoscaler.keda import externalscaler_pb2_grpc as rpc
from autoscaler.keda.demand import Wanted
from autoscaler.keda.metadata import Trigger, trigger
from autoscaler.keda.reader import Reader
from trimtab.errors import Missing, SettingsError, TrimtabError, Unavailable

ANSWERS = Counter("trimtab_keda_answers", "Answers to KEDA by question and gRPC code.", ["question", "code"])

SERVICE = pb.DESCRIPTOR.services_by_name["ExternalScaler"].full_name
_LOOK_SECONDS = 0.5
_CODES: dict[type[TrimtabError], grpc.StatusCode] = {
    SettingsError: grpc.StatusCode.INVALID_ARGUMENT,
    Missing: grpc.StatusCode.NOT_FOUND,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}


class Scaler(rpc.ExternalScalerServicer):
    """KEDA's four questions. What is not known is an error in words, never a number."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def IsActive(self, request: Any, context: Any) -> Any:
        """Whether there is demand above the trigger's activation rate."""
        try:
            asked = _trigger(request)
            active = _active(self._reader.wanted(asked), asked)
        except TrimtabError as error:
            await _refuse(context, "IsActive", error)
        ANSWERS.labels("IsActive", "OK").inc()
        return pb.IsActiveResponse(result=active)

    async def StreamIsActive(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The same at once and whenever it changes. Ends with an error when it is no longer known; KEDA asks again."""
        said: bool | None = None
        try:
            asked = _trigger(request)
            while True:
                active = _active(self._reader.wanted(asked), asked)
                if active != said:
                    said = active
                    ANSWERS.labels("StreamIsActive", "OK").inc()
                    yield pb.IsActiveResponse(result=active)
                await asyncio.sleep(_LOOK_SECONDS)
        except TrimtabError as error:
            await _refuse(context, "StreamIsActive", error)

    async def GetMetricSpec(self, request: Any, context: Any) -> Any:
        """One metric: replicas, with a target of 1 per replica. It needs no data, so that KEDA's fallback works without any."""
        try:
            name = _trigger(request).metric
        except TrimtabError as error:
            await _refuse(context, "GetMetricSpec", error)
        ANSWERS.labels("GetMetricSpec", "OK").inc()
        return pb.GetMetricSpecResponse(metricSpecs=[pb.MetricSpec(metricName=name, targetSize=1, targetSizeFloat=1.0)])

    async def GetMetrics(self, request: Any, context: Any) -> Any:
        """The replicas that the demand asks for."""
        try:
            asked = _trigger(request.scaledObjectRef)
            replicas = self._reader.wanted(asked).replicas
        except TrimtabError as error:
            await _refuse(context, "GetMetrics", error)
        ANSWERS.labels("GetMetrics", "OK").inc()
        name = request.metricName or asked.metric
        value = pb.MetricValue(metricName=name, metricValue=replicas, metricValueFloat=float(replicas))
        return pb.GetMetricsResponse(metricValues=[value])


def _server(reader: Reader, address: str) -> tuple[Any, Any, int]:
    """A server that is not started yet, its health, and its port. Raises `Missing`."""
    made = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    rpc.add_ExternalScalerServicer_to_server(Scaler(reader), made)  # type: ignore[no-untyped-call]
    well = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(well, made)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), made)
    with _free(address):
        port = made.add_insecure_port(address)
    return made, well, port


async def serve(reader: Reader, address: str, stop: asyncio.Event, started: Callable[[int], None]) -> None:
    """Serves until `stop`; calls ``started(port)`` once it does."""
    made, well, port = _server(reader, address)
    await made.start()
    for name in ("", SERVICE):
        await well.set(name, health_pb2.HealthCheckResponse.SERVING)
    started(port)
    await stop.wait()
    await well.enter_graceful_shutdown()
    await made.stop(grace=2.0)


def _trigger(request: Any) -> Trigger:
    return trigger(request.namespace, request.scalerMetadata)


def _active(wanted: Wanted, asked: Trigger) -> bool:
    return wanted.peak > asked.activation_rate


async def _refuse(context: Any, question: str, error: TrimtabError) -> None:
    """Ends the call with an error; does not return."""
    code = _CODES.get(type(error), grpc.StatusCode.UNAVAILABLE)
    ANSWERS.labels(question, code.name).inc()
    await context.abort(code, str(error))


@contextmanager
def _free(address: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Missing(f"cannot listen on {address}; choose another with --listen") from error

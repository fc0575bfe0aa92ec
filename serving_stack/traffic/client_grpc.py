"""KServe v2 over gRPC, with Triton's own messages."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serving_stack.traffic.client import Reply, gateway_says, too_late
from serving_stack.traffic.questions import Question, is_version
from serving_stack.traffic.target import ONCE_HEADER, PIN_HEADER, Target

CHANNELS = 8
"""Connections that take turns. A server bounds the open requests of one (often 100 to 1000); more would wait in the client."""


class GrpcClient:
    """Sends over a few connections of its own."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._metadata = tuple(target.headers().items())
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self._channels = [self._channel(target, options) for _ in range(CHANNELS)]
        self._stubs = itertools.cycle([service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in self._channels])

    @staticmethod
    def _channel(target: Target, options: list[tuple[str, int]]) -> Any:
        if not target.encrypted:
            return grpc.aio.insecure_channel(target.authority, options=options)
        return grpc.aio.secure_channel(target.authority, grpc.ssl_channel_credentials(target.certificates()), options=options)

    async def ask(self, question: Question, adapter: str | None) -> Reply:
        call = next(self._stubs).ModelInfer(
            _request(self._target.model, question.text, adapter), timeout=self._target.timeout, metadata=self._metadata
        )
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return Reply(error=too_late(self._target))
            # Envoy's own answers come as headers without a body, which gRPC counts as trailers.
            said = {**_words(error.initial_metadata()), **_words(error.trailing_metadata())}
            assigned, attempts = gateway_says(said)
            return Reply(error=f"gRPC {error.code().name}", assigned=assigned, attempts=attempts)
        assigned, attempts = gateway_says(_words(await call.initial_metadata()))
        label = _label(answer)
        if label is None or not is_version(answer.model_version):
            return Reply(error="not an inference answer", assigned=assigned, attempts=attempts)
        return Reply(version=answer.model_version, label=label, assigned=assigned, attempts=attempts)

    async def tell(self, version: str, answers: Sequence[tuple[str, str]]) -> str | None:
        headers = {**dict(self._metadata), **ONCE_HEADER, PIN_HEADER: version}
        request = _feedback(self._target.feedback_model, version, answers)
        try:
            await next(self._stubs).ModelInfer(request, timeout=self._target.timeout, metadata=tuple(headers.items()))
        except grpc.aio.AioRpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return too_late(self._target) if late else f"gRPC {error.code().name}"
        return None

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


def _request(model: str, text: str, adapter: str | None) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="text", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(text.encode())
    request.outputs.add(name="label")
    if adapter is not None:
        request.parameters["adapter"].string_param = adapter
    return request


def _feedback(model: str, version: str, answers: Sequence[tuple[str, str]]) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    shape = [len(answers), 1]
    request.inputs.add(name="version", datatype="INT64", shape=shape).contents.int64_contents.extend(
        [int(version)] * len(answers)
    )
    for name, place in (("answered", 0), ("right", 1)):
        texts = [pair[place].encode() for pair in answers]
        request.inputs.add(name=name, datatype="BYTES", shape=shape).contents.bytes_contents.extend(texts)
    return request


def _label(answer: Any) -> str | None:
    """The one label of an answer; None when there is none. Strings come raw: four bytes of length, then the bytes."""
    for place, output in enumerate(answer.outputs):
        if output.name != "label":
            continue
        if output.contents.bytes_contents:
            values = list(output.contents.bytes_contents)
        elif place < len(answer.raw_output_contents):
            raw = answer.raw_output_contents[place]
            values = [raw[4:]] if len(raw) >= 4 and int.from_bytes(raw[:4], "little") == len(raw) - 4 else []
        else:
            values = []
        return values[0].decode("utf-8", "replace") if len(values) == 1 else None
    return None


def _words(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}

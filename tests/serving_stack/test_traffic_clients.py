"""Asking over HTTP and gRPC: small servers that speak either, encrypted or not, right or broken. The same suite for both."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tritonclient.grpc import service_pb2, service_pb2_grpc

from serving_stack.traffic import Plan, Result, Segment, Target
from serving_stack.traffic.client import Reply, connect
from serving_stack.traffic.feedback import Feedback
from serving_stack.traffic.generator import Generator
from serving_stack.traffic.questions import Question, question
from trimtab.errors import Missing, SettingsError

ASKED = question("Wo ist meine Karte? 🃏 مرحبا", "card_arrival")
SAID = {"x-trimtab-assigned": "3", "x-envoy-attempt-count": "2"}


class Served:
    """What a small server saw, and how it is to behave: ok, fail, hang, nonsense (no label), version (not a number)."""

    def __init__(self, mode: str = "ok") -> None:
        self.mode = mode
        self.texts: list[str] = []
        self.adapters: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        self.told: list[tuple[int, str, str]] = []

    async def take(self, text: str, adapter: str | None, headers: dict[str, str]) -> None:
        self.texts.append(text)
        self.adapters.append(adapter)
        self.headers.append(headers)
        if self.mode == "hang":
            await asyncio.sleep(30)

    @property
    def outputs(self) -> list[str]:
        return [] if self.mode == "nonsense" else ["card_arrival"]

    @property
    def version(self) -> str:
        return "'; drop" if self.mode == "version" else "3"


@contextlib.asynccontextmanager
async def http(served: Served, secret: tuple[Path, Path] | None = None) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        if "feedback" in request.path:
            assert all(each["shape"] == [len(each["data"]), 1] for each in body["inputs"])
            served.headers.append(dict(request.headers))
            served.told += zip(*(each["data"] for each in body["inputs"]), strict=True)
            return web.json_response({}, status=400 if served.mode == "deaf" else 200)
        await served.take(body["inputs"][0]["data"][0], body.get("parameters", {}).get("adapter"), dict(request.headers))
        if served.mode == "fail":
            return web.json_response({"error": "made to fail"}, status=503, headers=SAID)
        outputs = [{"name": "label", "datatype": "BYTES", "shape": [1, 1], "data": served.outputs}]
        return web.json_response({"model_version": served.version, "outputs": outputs}, headers=SAID)

    app = web.Application()
    app.router.add_post("/v2/models/{model}/infer", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    context = None
    if secret:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*secret)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"http{'s' if secret else ''}://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


class _Grpc(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(self, served: Served) -> None:
        self.served = served

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        if request.model_name == "intent_feedback":
            version, answered, right = (each.contents for each in request.inputs)
            self.served.headers.append(dict(context.invocation_metadata()))
            texts = ([text.decode() for text in each.bytes_contents] for each in (answered, right))
            self.served.told += zip(version.int64_contents, *texts, strict=True)
            if self.served.mode == "deaf":
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "made to fail")
            return service_pb2.ModelInferResponse()
        text = request.inputs[0].contents.bytes_contents[0].decode()
        adapter = request.parameters["adapter"].string_param if "adapter" in request.parameters else None
        await self.served.take(text, adapter, dict(context.invocation_metadata()))
        if self.served.mode == "fail":
            context.set_trailing_metadata(tuple(SAID.items()))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "made to fail")
        await context.send_initial_metadata(tuple(SAID.items()))
        answer = service_pb2.ModelInferResponse(model_name="intent", model_version=self.served.version)
        answer.outputs.add(name="other", datatype="FP32", shape=[1])
        answer.raw_output_contents.append(b"\0\0\0\0")
        for label in self.served.outputs:
            answer.outputs.add(name="label", datatype="BYTES", shape=[1, 1])
            answer.raw_output_contents.append(len(label).to_bytes(4, "little") + label.encode())
        return answer


@contextlib.asynccontextmanager
async def grpc_(served: Served, secret: tuple[Path, Path] | None = None) -> AsyncIterator[str]:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Grpc(served), server)
    if secret:
        certificate, key = (path.read_bytes() for path in secret)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"grpc{'s' if secret else ''}://127.0.0.1:{port}"
    await server.stop(0)


Serve = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture(params=["http", "grpc"])
def serve(request: pytest.FixtureRequest) -> Serve:
    return {"http": http, "grpc": grpc_}[request.param]


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(pem)
    return folder / "cert.pem", folder / "key.pem"


def ask(serve: Serve, served: Served, adapter: str | None = None, secret: Any = None, **target: Any) -> Reply:
    async def scene() -> Reply:
        async with serve(served, secret) as url:
            client = connect(Target(url=url, model="intent", **target))
            try:
                return await client.ask(ASKED, adapter)
            finally:
                await client.close()

    return asyncio.run(scene())


def test_a_right_answer_is_understood(serve: Serve) -> None:
    served = Served()
    assert ask(serve, served) == Reply(version="3", label="card_arrival", assigned="3", attempts=2)
    assert served.texts == [ASKED.text]
    assert served.adapters == [None]
    assert "x-trimtab-pin-version" not in served.headers[0]


def test_pin_adapter_and_token_travel_along(serve: Serve, tmp_path: Path) -> None:
    served = Served()
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    target = Target(url="http://h", model="m", token_file=token)
    assert "s3cret" not in repr(target)
    assert ask(serve, served, "loans", pin=2, token_file=token).error is None
    assert served.adapters == ["loans"]
    headers = {name.lower(): value for name, value in served.headers[0].items()}
    assert headers["x-trimtab-pin-version"] == "2"
    assert headers["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("mode", "error"),
    [("fail", "HTTP 503|gRPC UNAVAILABLE"), ("nonsense", "not an inference answer"), ("version", "not an inference answer")],
)
def test_wrong_answers_are_errors_with_what_the_gateway_said(serve: Serve, mode: str, error: str) -> None:
    reply = ask(serve, Served(mode))
    assert reply.error in error.split("|")
    assert (reply.assigned, reply.attempts, reply.version) == ("3", 2, "")


def test_a_server_that_hangs_is_given_up(serve: Serve) -> None:
    assert ask(serve, Served("hang"), timeout=0.2).error == "no answer within 0.2 s"


def test_nobody_listens() -> None:
    async def scene(url: str) -> Reply:
        client = connect(Target(url=url, model="intent", timeout=5))
        try:
            return await client.ask(ASKED, None)
        finally:
            await client.close()

    assert asyncio.run(scene("http://127.0.0.1:1")).error == "ClientConnectorError"
    assert asyncio.run(scene("grpc://127.0.0.1:1")).error == "gRPC UNAVAILABLE"


def test_encrypted_with_a_certificate_that_is_believed_and_not_without(serve: Serve, secret: tuple[Path, Path]) -> None:
    assert ask(serve, Served(), secret=secret, ca_file=secret[0]).label == "card_arrival"
    served = Served()
    assert ask(serve, served, secret=secret, timeout=2).error is not None
    assert served.texts == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:8000", "starts with none of http://"),
        ("ftp://a", "starts with none of"),
        ("http://", "a host is missing"),
        ("grpc://host", "its port"),
    ],
)
def test_a_wrong_url_is_refused_in_words(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Target(url=url, model="intent").check()


def test_wrong_files_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="gone"):
        Target(url="http://a", model="intent", token_file=tmp_path / "gone").check()
    (tmp_path / "empty").write_text("two words\n")
    with pytest.raises(SettingsError, match="holds no bearer token"):
        Target(url="http://a", model="intent", token_file=tmp_path / "empty").check()
    with pytest.raises(SettingsError, match="no certificate"):
        Target(url="https://a", model="intent", ca_file=tmp_path / "empty").check()


def send(serve: Serve, served: Served, plan: Plan, **target: Any) -> tuple[Generator, list[Result]]:
    results: list[Result] = []

    async def scene() -> Generator:
        async with serve(served) as url:
            asked = [ASKED, Question(ASKED.body, "other", ASKED.text)]
            generator = Generator(plan, Target(url=url, model="intent", **target), asked, time.time(), results.append)
            await generator.run(asyncio.Event())
            return generator

    return asyncio.run(scene()), results


@pytest.mark.integration
def test_the_loop_stays_open_though_nothing_is_answered(serve: Serve) -> None:
    """More are open at once than one HTTP/2 connection is often allowed."""
    served = Served("hang")
    plan = Plan(duration=0.5, segments=(Segment(rate=800, arrivals="constant"),))
    generator, results = send(serve, served, plan, timeout=2.0)
    assert generator.scheduled == len(results) == len(served.texts) == 399
    assert {result.error for result in results} == {"no answer within 2 s"}


@pytest.mark.integration
def test_adapters_are_asked_by_their_popularity_and_the_same_again(serve: Serve) -> None:
    plan = Plan(seed=4, duration=0.5, segments=(Segment(rate=600, arrivals="constant"),))
    seen = []
    for _ in range(2):
        served = Served()
        _, results = send(serve, served, plan, adapters=("a", "b", "c"), skew=1.0)
        assert Counter(served.adapters) == Counter(result.adapter for result in results)
        assert {result.outcome for result in results} == {"ok", "wrong"}
        seen.append([result.adapter for result in sorted(results, key=lambda result: result.at)])
    assert seen[0] == seen[1]
    counts = Counter(seen[0])
    assert counts["a"] > counts["b"] > counts["c"] > 30  # 6 : 3 : 2 of 299


def test_right_labels_are_told_later_to_the_version_that_answered_and_once(serve: Serve) -> None:
    plan = Plan(duration=0.1, segments=(Segment(rate=100, arrivals="constant"),))
    served = Served()
    generator, results = send(serve, served, plan, pin=3, feedback_after=60.0)
    assert Counter(served.told) == {(3, "card_arrival", "card_arrival"): 5, (3, "card_arrival", "other"): 4}
    headers = {name.lower(): value for name, value in served.headers[-1].items()}
    assert headers["x-trimtab-pin-version"] == "3"
    assert headers["x-trimtab-retry"] == "never"
    assert generator.feedback is not None and generator.feedback.summary() == {"told": 9, "failed": 0, "failed_kinds": {}}
    assert len(results) == 9


def test_what_could_not_be_told_is_said(serve: Serve) -> None:
    plan = Plan(duration=0.1, segments=(Segment(rate=100, arrivals="constant"),))
    generator, results = send(serve, Served("deaf"), plan, feedback_after=0.0)
    assert generator.feedback is not None
    assert generator.feedback.told == 0
    assert list(generator.feedback.failed.values()) == [9]
    assert list(generator.feedback.failed) in (["HTTP 400"], ["gRPC INVALID_ARGUMENT"])
    assert all(result.outcome != "error" for result in results)


def test_only_what_is_old_enough_is_told_and_in_batches() -> None:
    batches: list[tuple[str, int]] = []

    class Listener:
        async def ask(self, question: Question, adapter: str | None) -> Reply:
            raise AssertionError

        async def tell(self, version: str, answers: Sequence[tuple[str, str]]) -> str | None:
            batches.append((version, len(answers)))
            return None

        async def close(self) -> None: ...

    async def scene() -> None:
        feedback = Feedback(Listener(), after=100.0)
        now = time.monotonic()
        for _ in range(300):
            feedback.learn("1", "a", "b")
        feedback.learn("2", "a", "b")
        await feedback.tell(now + 50)
        assert batches == []
        await feedback.tell(now + 200)

    asyncio.run(scene())
    assert batches == [("1", 256), ("1", 44), ("2", 1)]

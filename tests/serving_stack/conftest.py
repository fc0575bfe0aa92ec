"""A real Envoy in front of small upstreams that speak Triton's JSON and can be made to fail, hang or dawdle."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from serving_stack.gateway import GatewayPool, GatewayState, Patience, gateway_process, render, write


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Upstream:
    """One replica. `mode`: ok, fail (HTTP 500), slow (0.2 s), narrow (so long, one by one), hang, wrong (nonsense)."""

    def __init__(self, version: int, mode: str = "ok", labels: Mapping[str, str] | None = None) -> None:
        self.version, self.mode, self.labels = version, mode, labels or {}
        self.asked = 0
        self.answered = 0
        self.now = self.most = 0
        """Requests under way, now and at the most."""
        self._one = asyncio.Lock()
        self.paths: list[str] = []
        self.headers: Mapping[str, str] = {}
        """Of the last request."""
        self.delay = 0.2
        self.at = ("127.0.0.1", free_port())
        self._runner: web.AppRunner | None = None

    async def start(self) -> Upstream:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self.at).start()
        return self

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.paths.append(request.path_qs)
        self.headers = request.headers
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._answer(request)
        finally:
            self.now -= 1

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.mode == "narrow":
            async with self._one:
                await asyncio.sleep(self.delay)
        if self.mode == "hang":
            await asyncio.sleep(3600)
        if self.mode == "slow":
            await asyncio.sleep(self.delay)
        if self.mode == "fail":
            return web.json_response({"error": "made to fail"}, status=500)
        self.answered += 1
        label = "nonsense"
        if self.mode != "wrong" and body:
            text = re.search(rb'"data":\["((?:[^"\\]|\\.)*)"\]', body)
            label = self.labels.get(text[1].decode() if text else "", "unknown")
        outputs = [{"name": "label", "datatype": "BYTES", "shape": [1, 1], "data": [label]}]
        return web.json_response({"model_name": "intent", "model_version": str(self.version), "outputs": outputs})


class Gateway:
    """An Envoy process and the state that it was last given."""

    def __init__(self, folder: Path, patience: Patience, **how: Any) -> None:
        self.folder = folder
        self.state = GatewayState(fleet="intent", listen_port=free_port(), admin_port=free_port(), patience=patience, **how)
        self.session: aiohttp.ClientSession
        self._process: subprocess.Popen[bytes]

    def give(self, *pools: GatewayPool) -> None:
        self.state = msgspec.structs.replace(self.state, pools=pools)
        write(self.folder, render(self.state, self.folder))

    async def start(self) -> None:
        what = gateway_process(self.folder)
        self.url, self.metrics_url = what.url, what.metrics_url
        with (self.folder / "envoy.log").open("wb") as log:
            self._process = subprocess.Popen(what.argv, stdout=log, stderr=log)
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        await self.until(lambda: self._says_ready(what.ready_url))

    async def _says_ready(self, url: str) -> bool:
        assert self._process.poll() is None, (self.folder / "envoy.log").read_text()
        with contextlib.suppress(aiohttp.ClientError):
            async with self.session.get(url) as response:
                return response.status == 200
        return False

    async def stop(self) -> None:
        await self.session.close()
        self._process.terminate()
        self._process.wait(10)

    async def until(self, holds: Callable[[], Any], timeout: float = 20.0) -> None:
        """Waits until a condition (or coroutine function) holds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            value = holds()
            if await value if asyncio.iscoroutine(value) else value:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("what was waited for never came")

    async def ask(self, path: str = "/v2/models/intent/infer") -> tuple[int, str | None, str | None]:
        """Status, version that answered and version to which the request was assigned."""
        async with self.session.post(self.url + path, data=b"{}") as response:
            await response.read()
            return response.status, response.headers.get("x-trimtab-version"), response.headers.get("x-trimtab-assigned")

    async def ask_many(self, count: int, at_once: int = 10) -> Counter[tuple[int, str | None, str | None]]:
        limit = asyncio.Semaphore(at_once)

        async def one() -> tuple[int, str | None, str | None]:
            async with limit:
                return await self.ask()

        return Counter(await asyncio.gather(*(one() for _ in range(count))))

    async def metrics(self) -> dict[str, float]:
        """The page as it is once histograms have been flushed: series -> value."""
        await asyncio.sleep(1.1)
        async with self.session.get(self.metrics_url) as response:
            text = await response.text()
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {series: float(value) for series, value in lines}


@pytest.fixture
def upstream() -> type[Upstream]:
    return Upstream


@pytest.fixture
def gateway(tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Gateway]]:
    """`async with gateway(*pools, upstreams=[...], patience=...) as g`: all started, and stopped at the end.

    Other arguments are fields of the `GatewayState`.
    """

    @contextlib.asynccontextmanager
    async def started(
        *pools: GatewayPool, upstreams: tuple[Upstream, ...] = (), patience: Patience | None = None, **how: Any
    ) -> AsyncIterator[Gateway]:
        gateway = Gateway(tmp_path / "gateway", patience or Patience(), **how)
        gateway.give(*pools)
        async with contextlib.AsyncExitStack() as stack:
            for each in upstreams:
                await each.start()
                stack.push_async_callback(each.stop)
            await gateway.start()
            stack.push_async_callback(gateway.stop)
            yield gateway

    return started


@pytest.fixture
def tiny_export(tmp_path: Path) -> Path:
    """An exported model of three intents and ten tokens that a server would accept: a few hundred bytes, made in milliseconds."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    _write_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def write_tiny() -> Callable[..., None]:
    """Writes such a model with another shape: `write_tiny(folder, classes=4)`."""
    return _write_tiny


def _write_tiny(folder: Path, *, classes: int = 3, tokens: int = 10, batch: int | str = "batch", name: str = "ids") -> None:
    """Write `model.int8.onnx`, `tokenizer.json` and `intents.json`; the arguments change the network's shape only."""
    import json

    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    table = np.random.default_rng(7).normal(size=(tokens, classes)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", name], ["rows"]),
            helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=0),
            helper.make_node("Softmax", ["mean"], ["probabilities"], axis=-1),
        ],
        "tiny",
        [helper.make_tensor_value_info(n, TensorProto.INT64, [batch, "tokens"]) for n in (name, "mask")],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "model.int8.onnx")
    Tokenizer(WordLevel({f"word{i}": i for i in range(10)}, unk_token="word0")).save(str(folder / "tokenizer.json"))
    (folder / "intents.json").write_text(json.dumps(["one", "two", "three"]))

"""What the gateway adds to a request, in turns with the same one straight to Triton; and how fast it takes over a change.

A real Triton with the shipped model, and the real Envoy with all that the product has on: routes, retries, admission. One client,
one request at a time, on connections that are kept. "Plain" is Triton's /v2/health/live: without the noise of the model's time.

Figures: `added_p50_ms`, `added_p99_ms` (inference over HTTP), `plain_added_p50_ms`, `plain_added_p99_ms`, `grpc_added_p50_ms`,
`grpc_added_p99_ms`; `update_ms` (median), `update_worst_ms`: from the start of writing new weights to the end of the first answer
that follows them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import numpy as np
import tritonclient.grpc

from benchmarks.drain.fleet import MODEL, Fleet, fleet, shipped
from benchmarks.frame import Cell, Options, Result, median
from benchmarks.gateway.turns import HttpClient, added, http_request, in_turns, share
from serving_stack.gateway import GatewayPool
from trimtab.errors import Unavailable

TEXT = "I still have not received my new card, and I ordered it a week ago"

Asking = AbstractContextManager[Callable[[], object]]


def run(options: Options) -> Result:
    """5,000 requests each way with the model and 20,000 without, 200 changes; quick: 400, 3,000 and 40."""
    count, plain, changes = (400, 3000, 40) if options.quick else (5000, 20000, 200)
    with tempfile.TemporaryDirectory(prefix="trimtab-gateway-") as name:
        shipped(Path(name) / "store", options.say)
        with fleet(Path(name) / "fleet", Path(name) / "store") as on:
            on.start((1, "stable", 1, 100))
            (pool,) = on.routed
            ((_, http),), ((_, grpc),) = pool.endpoints, pool.grpc
            asked: list[tuple[str, str, int, Asking, Asking]] = [
                ("plain_", "plain", plain, _health(http), _health(on.port)),
                ("", "inference, HTTP", count, _infer(http), _infer(on.port)),
                ("grpc_", "inference, gRPC", count, _grpc(grpc), _grpc(on.port)),
            ]
            rows: list[dict[str, Cell]] = []
            figures: dict[str, float | None] = {}
            for prefix, what, times, straight, through in asked:
                options.say(f"{what}: {times} requests each way")
                with straight as one, through as other:
                    taken = in_turns({"straight": one, "through": other}, times)
                row: dict[str, Cell] = {"what": what, "each": times}
                for part in (50, 99):
                    a, b = (1000 * share(sorted(taken[way]), part / 100) for way in ("straight", "through"))
                    more = 1000 * added(taken["straight"], taken["through"], part / 100)
                    row |= {
                        f"p{part}_straight": round(a, 3),
                        f"p{part}_through": round(b, 3),
                        f"p{part}_added": round(more, 3),
                    }
                    figures[f"{prefix}added_p{part}_ms"] = more
                rows.append(row)
            options.say(f"{changes} changes of weights")
            updates = _updates(on, pool, changes)
    figures |= {"update_ms": median(updates), "update_worst_ms": max(updates)}
    return Result(
        rows,
        figures,
        ["milliseconds; added: the percentile through the gateway less that straight, median over ten blocks of the run"],
    )


def _body() -> bytes:
    return msgspec.json.encode({"inputs": [{"name": "text", "shape": [1, 1], "datatype": "BYTES", "data": [TEXT]}]})


@contextmanager
def _health(port: int) -> Iterator[Callable[[], object]]:
    request = http_request("/v2/health/live")
    with HttpClient(port) as client:
        yield lambda: client.ask(request)


@contextmanager
def _infer(port: int) -> Iterator[Callable[[], object]]:
    request = http_request(f"/v2/models/{MODEL}/infer", _body())
    with HttpClient(port) as client:
        yield lambda: client.ask(request)


@contextmanager
def _grpc(port: int) -> Iterator[Callable[[], object]]:
    given = tritonclient.grpc.InferInput("text", [1, 1], "BYTES")
    given.set_data_from_numpy(np.array([[TEXT.encode()]], dtype=np.object_))
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}") as client:
        yield lambda: client.infer(MODEL, [given])


def _updates(on: Fleet, pool: GatewayPool, count: int) -> list[float]:
    """Milliseconds until each of `count` changes is followed: all traffic to one version, then to the other, on one replica."""
    taken = []
    request = http_request(f"/v2/models/{MODEL}/ready")
    with HttpClient(on.port) as client:
        on.route(pool, msgspec.structs.replace(pool, version=2, role="canary", weight=0))
        time.sleep(0.5)
        for number in range(count):
            share_of_new = 100 * (number % 2 == 0)
            wanted = b"x-trimtab-assigned: 2" if share_of_new else b"x-trimtab-assigned: 1"
            began = time.perf_counter()
            on.route(
                msgspec.structs.replace(pool, weight=100 - share_of_new),
                msgspec.structs.replace(pool, version=2, role="canary", weight=share_of_new),
            )
            while wanted not in client.ask(request):
                if time.perf_counter() - began > 10:
                    raise Unavailable("the gateway did not take over a change within 10 s")
            taken.append(1000 * (time.perf_counter() - began))
            time.sleep(0.02)
    return taken

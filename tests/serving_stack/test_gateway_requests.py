"""Which requests pass the gateway and what is done with each kind, on the real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from serving_stack.gateway import Admission, GatewayPool, Patience

pytestmark = pytest.mark.integration

INFER = "/v2/models/intent/infer"


def pools(a: Any, b: Any, mirror: int = 0, weight: int = 50) -> tuple[GatewayPool, GatewayPool]:
    return (
        GatewayPool(version=1, role="stable", weight=100 - weight, endpoints=(a.at,)),
        GatewayPool(version=2, role="canary", weight=weight, endpoints=(b.at,), mirror=mirror),
    )


async def ask(g: Any, path: str = INFER, method: str = "POST", **headers: str) -> tuple[int, Any, dict[str, str]]:
    """Status, body as JSON, headers."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with g.session.request(method, g.url + path, data=b"{}" if method == "POST" else None, headers=names) as response:
        body = await response.read()
        return response.status, json.loads(body) if body else None, {k.lower(): v for k, v in response.headers.items()}


def test_a_pinned_request_is_answered_by_that_version_or_not_at_all(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a, b = upstream(1), upstream(2)
        async with gateway(*pools(a, b, weight=0), upstreams=(a, b), patience=Patience(retries=3)) as g:
            for _ in range(20):
                status, body, headers = await ask(g, x_trimtab_pin_version="2")
                assert (status, body["model_version"], headers["x-trimtab-version"]) == (200, "2", "2")
            assert (a.asked, b.asked) == (0, 20)
            b.mode = "fail"
            assert (await ask(g, x_trimtab_pin_version="2"))[0] == 500
            assert a.asked == 0  # nobody stands in for the version that was asked for
            status, body, _ = await ask(g, x_trimtab_pin_version="7")
            assert (status, body["error"]) == (404, "x-trimtab-pin-version names no version that is there; there are: 1, 2")
            page = await g.metrics()
            # Pinned requests were no lot: the comparison of versions does not see them, the fleet's arrivals do.
            assert not any("upstream_rq_xx" in series and 'name="intent_v2"' in series for series in page)
            assert page['envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="intent"}'] == 22

    asyncio.run(scene())


def test_a_version_in_the_path_of_the_fleets_model_is_a_pin(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a, b = upstream(1), upstream(2)
        async with gateway(*pools(a, b), upstreams=(a, b), model="intent") as g:
            for version in ("1", "2"):
                for method, end in (("POST", "/infer"), ("GET", "/ready"), ("GET", "")):
                    for _ in range(8):
                        status, body, _ = await ask(g, f"/v2/models/intent/versions/{version}{end}", method)
                        assert (status, body["model_version"]) == (200, version)
            before = a.asked, b.asked
            for _ in range(40):  # another model's versions are its own
                await ask(g, "/v2/models/other/versions/2/infer")
            assert a.asked > before[0]
            assert b.asked > before[1]

    asyncio.run(scene())


def test_a_long_name_of_a_model_and_many_versions_are_not_too_much_for_envoy(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        model = "a.very-long+name" * 12
        a, b = upstream(10**9), upstream(10**9 + 1)
        more = [GatewayPool(version=n, role="previous", weight=0) for n in range(8)]
        many = GatewayPool(version=10**9 + 1, role="canary", weight=50, endpoints=(b.at,), mirror=1)
        one = GatewayPool(version=10**9, role="stable", weight=50, endpoints=(a.at,))
        async with gateway(one, many, *more, upstreams=(a, b), model=model, grpc=True) as g:
            status, body, _ = await ask(g, f"/v2/models/{model}/versions/{10**9}/infer")
            assert (status, body["model_version"]) == (200, str(10**9))
            page = await g.metrics()
            assert all(value == 0 for series, value in page.items() if "update_rejected" in series)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/models/intent/load"),
        ("POST", "/v2/repository/models/intent/unload"),
        ("POST", "/v2/systemsharedmemory/region/a/register"),
        ("POST", "/v2/cudasharedmemory/unregister"),
        ("POST", "/v2/trace/setting"),
        ("POST", "/v2/logging"),
        ("POST", "/v2/models/intent/trace/setting"),
        ("GET", "/metrics"),
        ("DELETE", INFER),
    ],
)
def test_what_changes_a_replica_does_not_pass(gateway: Callable[..., Any], upstream: Any, method: str, path: str) -> None:
    async def scene() -> None:
        a = upstream(1)
        async with gateway(GatewayPool(version=1, role="stable", weight=100, endpoints=(a.at,)), upstreams=(a,)) as g:
            status, body, _ = await ask(g, path, method)
            assert (status, body) == (404, {"error": "only inference, and what reads about it, passes the gateway"})
            assert a.asked == 0

    asyncio.run(scene())


def test_what_is_not_safe_to_repeat_is_asked_once(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a = upstream(1, "fail")
        pool = GatewayPool(version=1, role="stable", weight=100, endpoints=(a.at,))
        async with gateway(pool, upstreams=(a,), patience=Patience(retries=3, backoff_max=0.05)) as g:
            for path, headers in (
                ("/v2/models/intent_feedback/infer", {}),
                ("/v2/models/intent/generate_stream", {}),
                (INFER, {"x_trimtab_retry": "never"}),
                (INFER, {"x_trimtab_retry": "Never", "x_trimtab_pin_version": "1"}),
            ):
                before = a.asked
                assert (await ask(g, path, **headers))[0] == 500
                assert a.asked == before + 1, path
            before = a.asked
            assert (await ask(g))[0] == 500
            assert a.asked == before + 4
            # Nobody was reached, so it is safe: it waits for a replica like any other.
            g.give(GatewayPool(version=1, role="stable", weight=100))
            await asyncio.sleep(0.3)
            held = asyncio.create_task(ask(g, x_trimtab_retry="never"))
            await asyncio.sleep(0.05)
            b = upstream(1)
            await b.start()
            g.give(GatewayPool(version=1, role="stable", weight=100, endpoints=(b.at,)))
            await held
            await b.stop()

    asyncio.run(scene())


def test_copies_go_to_the_canary_and_nobody_waits_for_them(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a, b = upstream(1), upstream(2, "fail")
        async with gateway(*pools(a, b, mirror=50, weight=0), upstreams=(a, b)) as g:
            assert await g.ask_many(400) == {(200, "1", "1"): 400}
            await g.until(lambda: b.asked > 140)
            assert b.asked < 260  # 200, six standard deviations either way
            assert set(b.paths) == {INFER}
            page = await g.metrics()
            failed = 'envoy_cluster_upstream_rq_xx{envoy_response_code_class="5",envoy_cluster_name="intent_v2_mirror"}'
            assert page[failed] == b.asked
            assert not any('"intent_v2"' in series and "upstream_rq_xx" in series for series in page)
            b.mode = "hang"
            assert await g.ask_many(100) == {(200, "1", "1"): 100}
            before = b.asked
            await ask(g, x_trimtab_retry="never")
            await ask(g, "/v2/models/intent_feedback/infer")
            await ask(g, "/v2/health/ready", "GET")
            assert b.asked == before  # only what may run twice is copied

    asyncio.run(scene())


def test_under_overload_it_refuses_early_and_goes_on_answering(gateway: Callable[..., Any], upstream: Any) -> None:
    """A replica that does one request at a time, 50 a second at the most, and is asked ten times that."""
    limits = Admission(target=0.1, least=4, most=60, every=0.2, retry_after=3)

    async def scene() -> None:
        a = upstream(1, "narrow")
        a.delay = 0.02
        pool = GatewayPool(version=1, role="stable", weight=100, endpoints=(a.at,))
        async with gateway(pool, upstreams=(a,), admission=limits) as g:
            asked: list[asyncio.Task[Any]] = []
            for second in range(6):
                if second == 2:
                    a.most = 0  # the limit has found its place
                    settled, before = len(asked), a.answered
                for _ in range(50):
                    asked += [asyncio.create_task(ask(g)) for _ in range(10)]
                    await asyncio.sleep(0.02)
            assert (await ask(g, "/v2/health/ready", "GET"))[0] == 200  # who asks whether it lives is never refused
            done = a.answered - before
            seen = await asyncio.gather(*asked)
            assert Counter(status for status, *_ in seen).keys() == {200, 503}
            refused = [(body, headers) for status, body, headers in seen if status == 503]
            assert all(headers["retry-after"] == "3" for _, headers in refused)
            assert {body["error"] for body, _ in refused} == {"reached concurrency limit"}
            assert a.most <= 30  # what waits is a fraction of what would be allowed at most
            assert done > 60  # of some 200: it goes on working
            assert sum(status == 200 for status, *_ in seen[settled:]) > 60
            page = await g.metrics()
            blocked = next(value for series, value in page.items() if "rq_blocked" in series)
            assert blocked == len(refused)
            assert await g.ask_many(50, at_once=2) == {(200, "1", "1"): 50}  # and when it is over, nobody is refused

    asyncio.run(scene())

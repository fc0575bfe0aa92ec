"""What the gateway promises, on the real Envoy."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving_stack.gateway import Admission, GatewayPool, GatewayState, Patience, gateway_process, render, write
from trimtab.messages import PoolRole

pytestmark = pytest.mark.integration

ROLES: tuple[tuple[int, PoolRole, int], ...] = ((1, "previous", 0), (2, "stable", 90), (3, "canary", 10))
SERVER = """
import sys
from aiohttp import web
async def answer(request):
    return web.json_response({"model_version": sys.argv[2]})
app = web.Application()
app.router.add_route("*", "/{path:.*}", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


def stable(*upstreams: Any, weight: int = 100) -> GatewayPool:
    return GatewayPool(version=1, role="stable", weight=weight, endpoints=tuple(u.at for u in upstreams))


def canary(*upstreams: Any, weight: int = 20) -> GatewayPool:
    return GatewayPool(version=2, role="canary", weight=weight, endpoints=tuple(u.at for u in upstreams))


@pytest.mark.parametrize(
    "pools",
    [
        (),
        (GatewayPool(version=1, role="stable", weight=100),),
        (GatewayPool(version=1, role="stable", weight=100, endpoints=(("127.0.0.1", 1),)),),
        tuple(
            GatewayPool(version=version, role=role, weight=weight, endpoints=(("127.0.0.1", 1000 + version),))
            for version, role, weight in ROLES
        ),
    ],
)
def test_envoy_finds_the_files_valid(tmp_path: Path, pools: tuple[GatewayPool, ...]) -> None:
    state = GatewayState(fleet="my-fleet_2", listen_port=18080, admin_port=18081, pools=pools)
    write(tmp_path, render(state, tmp_path))
    checked = subprocess.run(gateway_process(tmp_path, validate=True).argv, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr


def test_weights_are_followed_and_paths_kept(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a, b = upstream(1), upstream(2)
        async with gateway(stable(a, weight=80), canary(b, weight=20), upstreams=(a, b)) as g:
            seen = await g.ask_many(1000)
            assert set(seen) == {(200, "1", "1"), (200, "2", "2")}
            assert 140 < seen[200, "2", "2"] < 260  # 200, five standard deviations either way
            await g.ask("/v2/models/intent/infer?x=1")
            assert "/v2/models/intent/infer?x=1" in a.paths + b.paths
            g.give(stable(a, weight=0), canary(b, weight=100))
            await g.until(lambda: _only(g, "2"))
            before = a.asked
            assert await g.ask_many(300) == {(200, "2", "2"): 300}
            assert a.asked == before

    asyncio.run(scene())


async def _only(g: Any, version: str) -> bool:
    return {answered for _status, answered, _assigned in await g.ask_many(20)} == {version}


def test_a_canary_of_no_weight_gets_nothing(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a, b = upstream(1, "fail"), upstream(2)
        async with gateway(stable(a), canary(b, weight=0), upstreams=(a, b), patience=Patience(retries=5)) as g:
            assert set(await g.ask_many(10)) == {(500, "1", "1")}
            assert b.asked == 0

    asyncio.run(scene())


def test_what_fails_on_the_stable_pool_falls_back_to_the_previous_one(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        old, new = upstream(1), upstream(2)
        pools = (
            GatewayPool(version=2, role="stable", weight=100, endpoints=(new.at,)),
            GatewayPool(version=1, role="previous", weight=0, endpoints=(old.at,)),
        )
        async with gateway(*pools, upstreams=(old, new)) as g:
            assert await g.ask_many(100) == {(200, "2", "2"): 100}
            assert old.asked == 0
            new.mode = "fail"
            assert await g.ask_many(20) == {(200, "1", "2"): 20}

    asyncio.run(scene())


def test_a_removed_replica_gets_nothing_new_and_finishes_what_it_holds(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a, b = upstream(1), upstream(1, "slow")
        b.delay = 2.0
        async with gateway(stable(b), upstreams=(a, b), patience=Patience(hedge_after_alone=10.0)) as g:
            held = [asyncio.create_task(g.ask()) for _ in range(10)]
            await g.until(lambda: b.asked == 10)
            g.give(stable(a))
            await g.until(lambda: _reaches(g, a))
            before = b.asked
            assert set(await g.ask_many(200)) == {(200, "1", "1")}
            assert b.asked == before
            assert {await task for task in held} == {(200, "1", "1")}
            assert b.answered == before  # it answered all that it was asked: nothing was torn off

    asyncio.run(scene())


async def _reaches(g: Any, replica: Any) -> bool:
    before = replica.asked
    await g.ask()
    return bool(replica.asked > before)


def test_a_hanging_replica_costs_no_error(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a, b = upstream(1), upstream(1)
        async with gateway(stable(a, b), upstreams=(a, b)) as g:
            assert set(await g.ask_many(50)) == {(200, "1", "1")}
            b.mode, before = "hang", b.asked
            assert await g.ask_many(100) == {(200, "1", "1"): 100}
            assert b.asked > before
            page = await g.metrics()
            assert page['envoy_cluster_upstream_rq_retry{envoy_cluster_name="intent_v1"}'] > 0
            assert _slower_than(page, "intent_v1", "850") > 0

    asyncio.run(scene())


def _slower_than(page: dict[str, float], cluster: str, milliseconds: str) -> float:
    count = page[f'envoy_cluster_upstream_rq_time_count{{envoy_cluster_name="{cluster}"}}']
    return count - page[f'envoy_cluster_upstream_rq_time_bucket{{envoy_cluster_name="{cluster}",le="{milliseconds}"}}']


def test_the_only_replica_may_stop_dead_if_a_replacement_comes(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        sick, fresh = upstream(1), upstream(1)
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(sick.at[1]), "1"])
        try:
            async with gateway(stable(sick), upstreams=(fresh,), patience=Patience(hedge_after_alone=1.0)) as g:
                assert (await g.ask())[0] == 200  # waits while the replica starts
                process.send_signal(signal.SIGSTOP)
                held = [asyncio.create_task(g.ask()) for _ in range(30)]
                await asyncio.sleep(2.5)
                assert not any(task.done() for task in held)
                g.give(stable(fresh))
                assert Counter([await task for task in held]) == {(200, "1", "1"): 30}
        finally:
            process.kill()
            process.wait()

    asyncio.run(scene())


def test_killing_a_hanging_replica_frees_what_it_holds(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        sick, fresh = upstream(1), upstream(1)
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(sick.at[1]), "1"])
        try:
            patient, many = Patience(hedge_after_alone=14.0), Admission(least=200)  # the limit has had no time to grow
            async with gateway(stable(sick), upstreams=(fresh,), patience=patient, admission=many) as g:
                assert (await g.ask())[0] == 200
                process.send_signal(signal.SIGSTOP)
                held = [asyncio.create_task(g.ask()) for _ in range(200)]
                await asyncio.sleep(1.0)
                g.give(stable())  # out of traffic, and nothing in its place yet
                process.kill()
                await asyncio.sleep(1.0)
                assert not any(task.done() for task in held)
                g.give(stable(fresh))
                assert Counter(await asyncio.wait_for(asyncio.gather(*held), 10)) == {(200, "1", "1"): 200}
        finally:
            process.kill()
            process.wait()

    asyncio.run(scene())


def test_a_failing_canary_costs_no_error_and_is_seen_under_its_own_name(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a, b = upstream(1), upstream(2, "fail")
        async with gateway(stable(a, weight=50), canary(b, weight=50), upstreams=(a, b)) as g:
            seen = await g.ask_many(200)
            assert set(seen) == {(200, "1", "1"), (200, "1", "2")}
            page = await g.metrics()
            failed = (
                'envoy_cluster_upstream_rq_xx{envoy_response_code_class="5",envoy_cluster_name="intent_v2",envoy_retry="retry"}'
            )
            answered = 'envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="intent_v2"}'
            assert page[failed] == b.asked  # one count per failed try
            assert page[answered] == seen[200, "1", "2"]  # one count per request whose lot was version 2
            assert page[failed] == 2 * page[answered]
            assert not any('class="5"' in series and "intent_v1" in series for series in page)
            assert page['envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="intent"}'] == 200
            assert len(page) < 400

    asyncio.run(scene())


def test_a_slow_canary_is_seen_under_its_own_name(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a, b = upstream(1), upstream(2, "slow")
        async with gateway(stable(a, weight=50), canary(b, weight=50), upstreams=(a, b)) as g:
            seen = await g.ask_many(60)
            page = await g.metrics()
            assert _slower_than(page, "intent_v2", "160") == seen[200, "2", "2"]
            assert _slower_than(page, "intent_v1", "160") == 0

    asyncio.run(scene())


def test_a_canary_without_replicas_is_answered_by_the_stable_pool(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a = upstream(1)
        async with gateway(stable(a, weight=50), canary(weight=50), upstreams=(a,)) as g:
            assert set(await g.ask_many(50)) == {(200, "1", "1"), (200, "1", "2")}

    asyncio.run(scene())


def test_a_stable_pool_without_replicas_waits_though_a_canary_runs(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a, b = upstream(1), upstream(2)
        async with gateway(stable(weight=50), canary(b, weight=50), upstreams=(a, b)) as g:
            held = [asyncio.create_task(g.ask()) for _ in range(40)]
            await asyncio.sleep(1.0)
            assert 0 < sum(task.done() for task in held) < 40  # the canary answers for itself only
            g.give(stable(a, weight=50), canary(b, weight=50))
            assert set(await asyncio.gather(*held)) == {(200, "1", "1"), (200, "2", "2")}

    asyncio.run(scene())


def test_with_no_replica_at_all_requests_wait_for_one(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a = upstream(1)
        async with gateway(stable(), upstreams=(a,)) as g:
            held = [asyncio.create_task(g.ask()) for _ in range(20)]
            await asyncio.sleep(2.0)
            assert not any(task.done() for task in held)
            g.give(stable(a))
            assert Counter(await asyncio.gather(*held)) == {(200, "1", "1"): 20}

    asyncio.run(scene())


def test_and_are_refused_when_none_comes(gateway: Callable[..., Any]) -> None:
    async def scene() -> None:
        async with gateway(stable(), patience=Patience(request_timeout=1.5)) as g:
            status, _version, assigned = await g.ask()
            assert status in (503, 504)
            assert assigned == "1"
            g.give()
            await g.until(lambda: _status(g, 503))

    asyncio.run(scene())


async def _status(g: Any, wanted: int) -> bool:
    return bool((await g.ask())[0] == wanted)


def test_a_dying_replica_costs_no_error(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        a, b = upstream(1), upstream(1)
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(b.at[1]), "1"])
        try:
            async with gateway(stable(a, b), upstreams=(a,)) as g:
                asking = asyncio.create_task(g.ask_many(1500))
                await g.until(lambda: a.asked > 100)
                process.kill()
                assert await asking == {(200, "1", "1"): 1500}
        finally:
            process.kill()
            process.wait()

    asyncio.run(scene())


def test_a_whole_release_under_load_loses_nothing(gateway: Callable[..., Any], upstream: Any) -> None:
    async def scene() -> None:
        one, two, three = upstream(1), upstream(2), upstream(3)

        def pool(replica: Any, role: Any, weight: int) -> GatewayPool:
            return GatewayPool(version=replica.version, role=role, weight=weight, endpoints=(replica.at,))

        steps = [
            (pool(one, "stable", 80), pool(two, "canary", 20)),
            (pool(one, "stable", 50), pool(two, "canary", 50)),
            (pool(two, "stable", 100), pool(one, "previous", 0)),
            (pool(two, "stable", 100),),
            (pool(two, "stable", 50), pool(three, "canary", 50)),
            (pool(two, "stable", 100),),
            (pool(three, "stable", 100),),
            (pool(one, "stable", 100),),
        ]
        async with gateway(pool(one, "stable", 100), upstreams=(one, two, three)) as g:
            stop = asyncio.Event()

            async def load() -> Counter[int]:
                seen: Counter[int] = Counter()
                while not stop.is_set():
                    seen[(await g.ask())[0]] += 1
                return seen

            loads = [asyncio.create_task(load()) for _ in range(4)]
            for step in steps:
                g.give(*step)
                await asyncio.sleep(0.4)
            stop.set()
            seen = sum(await asyncio.gather(*loads), Counter())
            assert set(seen) == {200}
            assert seen[200] > 100
            assert await g.ask_many(20) == {(200, "1", "1"): 20}

    asyncio.run(scene())

"""Envoy's routes, from a `GatewayState`: which requests there are, and what is done with each kind.

Only inference and reading pass: what loads, unloads or changes something on one replica of many is refused. The most frequent
kind comes first, and of each kind first what carries no wishes, so that these cost the fewest comparisons.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from serving_stack.gateway.envoy_json import TYPE, Json, resources, seconds
from serving_stack.gateway.render_clusters import chosen, mirrored, replicas, speeches
from serving_stack.gateway.state import GatewayPool, GatewayState

PIN = "x-trimtab-pin-version"
"""A request that carries this header is answered by that version or not at all: no lot is drawn, and nothing stands in."""
RETRY = "x-trimtab-retry"
"""``never``: try this request again only when it surely reached nobody."""
ADMISSION, ACCESS = "admission", "access"
"""Names of the filters that some routes go without."""

_SERVICE = "/inference.GRPCInferenceService/"
_NEVER: Json = {"name": RETRY, "string_match": {"exact": "never", "ignore_case": True}}
_NOT_NEVER: Json = {**_NEVER, "invert_match": True, "treat_missing_header_as_empty": True}
_NO_PIN: Json = {"name": PIN, "present_match": True, "invert_match": True}


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request: how it is told, and how it is treated."""

    path: str
    """Regular expression of the whole path."""
    method: Literal["GET", "POST"] = "POST"
    speech: str = ""
    pin: int | None = None
    """The path itself names this version."""
    safe: bool = True
    """May run twice, so it is tried again after any failure, hedged, and mirrored."""
    guarded: bool = False
    """May be refused under overload. What is not inference costs next to nothing, and probes must always be answered."""
    endless: bool = False
    """A stream: as long as it goes on."""
    open: bool = False
    """Needs no token."""


def kinds(state: GatewayState) -> list[Kind]:
    """The kinds of requests that pass, the most frequent first."""
    versions = [pool.version for pool in state.pools] if state.model else []
    own = f"/v2/models/{re.escape(state.model or '')}/versions"
    any_model, any_version = "/v2/models/[^/]+", r"/v2/models/[^/]+/versions/\d+"
    found = [
        # What is learned of answers is counted: twice would be wrong.
        Kind(path=r"/v2/models/[^/]+_feedback(/versions/\d+)?/infer", safe=False, guarded=True),
        Kind(path=f"{any_model}/(infer|generate)", guarded=True),
        Kind(path=f"{any_model}/generate_stream", safe=False, endless=True),
        *(Kind(path=f"{own}/{version}/(infer|generate)", pin=version, guarded=True) for version in versions),
        *(Kind(path=f"{own}/{version}/generate_stream", pin=version, safe=False, endless=True) for version in versions),
        *(Kind(path=f"{own}/{version}(/.*)?", method="GET", pin=version) for version in versions),
        Kind(path=f"{any_version}/(infer|generate)", guarded=True),
        Kind(path=f"{any_version}/generate_stream", safe=False, endless=True),
        Kind(path="/v2/health/(live|ready)", method="GET", open=True),
        Kind(path="/v2(/|/models/.*)?", method="GET"),
        Kind(path="/v2/repository/index"),
    ]
    reads = "ServerMetadata|ModelReady|ModelMetadata|ModelConfig|ModelStatistics|RepositoryIndex"
    grpc = [
        Kind(path=f"{_SERVICE}ModelInfer", speech="_grpc", guarded=True),
        Kind(path=f"{_SERVICE}ModelStreamInfer", speech="_grpc", safe=False, endless=True),
        Kind(path=rf"{_SERVICE}Server(Live|Ready)|/grpc\.health\.v1\.Health/Check", speech="_grpc", open=True),
        Kind(path=f"{_SERVICE}({reads})", speech="_grpc"),
    ]
    return [kind for kind in found + grpc if kind.speech in speeches(state)]


def routes(state: GatewayState) -> Json:
    """The route table, and the tokens that are accepted. When no pool has weight, everything goes to the stable one."""
    weighted = [pool for pool in state.pools if pool.weight > 0] or [pool for pool in state.pools if pool.role == "stable"]
    if weighted:
        table = [route for kind in kinds(state) for route in _routes(state, kind, weighted)]
        table.append(_say(404, "only inference, and what reads about it, passes the gateway", {"prefix": "/"}))
    else:
        table = [_say(503, f"fleet {state.fleet} has no pool", {"prefix": "/"})]
    host: Json = {
        "name": state.fleet,
        "domains": ["*"],
        "include_attempt_count_in_response": True,
        # What holds for most routes is said once: the smaller the table, the faster a change is taken over.
        "retry_policy": _retries(state, safe=True),
        "hedge_policy": {"hedge_on_per_try_timeout": True},
        "routes": table,
    }
    if state.tokens:
        tokens = [{"key": str(token), "client": f"token-{number}"} for number, token in enumerate(state.tokens, 1)]
        auth = TYPE + "extensions.filters.http.api_key_auth.v3.ApiKeyAuthPerRoute"
        hide = {"hide_credentials": True}
        host["typed_per_filter_config"] = {ACCESS: {"@type": auth, "credentials": tokens, "forwarding": hide}}
    return resources([{"@type": TYPE + "config.route.v3.RouteConfiguration", "name": state.fleet, "virtual_hosts": [host]}])


def named_clusters(rendered: Json) -> set[str]:
    """The clusters that rendered routes send to. Raises KeyError when these are none of ours."""
    found = set()
    for route in rendered["resources"][0]["virtual_hosts"][0]["routes"]:
        action = route.get("route", {})
        found |= {each["name"] for each in action.get("weighted_clusters", {}).get("clusters", ())}
        found |= {each["cluster"] for each in (action, *action.get("request_mirror_policies", ())) if "cluster" in each}
    return found


def _routes(state: GatewayState, kind: Kind, weighted: list[GatewayPool]) -> Iterator[Json]:
    """First by lot, then by pin; each once more for inference that may be tried twice but does not want to."""
    either = [(True, [_NOT_NEVER]), (False, [_NEVER])]
    for safe, wish in either if kind.safe and kind.guarded else [(kind.safe, [])]:
        if kind.pin is not None:
            (pool,) = (pool for pool in state.pools if pool.version == kind.pin)
            yield _forward(state, kind, safe, wish, _pinned(state, kind, pool))
            continue
        yield _forward(state, kind, safe, [_NO_PIN, *wish], _by_lot(state, kind, safe, weighted))
        for pool in state.pools:
            pin = {"name": PIN, "string_match": {"exact": str(pool.version)}}
            yield _forward(state, kind, safe, [pin, *wish], _pinned(state, kind, pool))
    if kind.pin is None:
        there = ", ".join(str(pool.version) for pool in state.pools)
        yield _say(404, f"{PIN} names no version that is there; there are: {there}", _match(kind, []))


def _by_lot(state: GatewayState, kind: Kind, safe: bool, weighted: list[GatewayPool]) -> Json:
    shares = [
        {
            "name": chosen(state, pool.version, kind.speech),
            "weight": pool.weight or 100,
            "response_headers_to_add": [_header("x-trimtab-assigned", str(pool.version))],
        }
        for pool in weighted
    ]
    copies = [
        {
            "cluster": mirrored(state, pool.version, kind.speech),
            "runtime_fraction": {"default_value": {"numerator": pool.mirror, "denominator": "HUNDRED"}},
            "disable_shadow_host_suffix_append": True,
        }
        for pool in state.pools
        if pool.mirror and safe and kind.guarded
    ]
    return {"weighted_clusters": {"clusters": shares}, **({"request_mirror_policies": copies} if copies else {})}


def _pinned(state: GatewayState, kind: Kind, pool: GatewayPool) -> Json:
    return {"cluster": replicas(state, pool.version, kind.speech)}


def _forward(state: GatewayState, kind: Kind, safe: bool, hints: list[Json], target: Json) -> Json:
    disabled = {"@type": TYPE + "config.route.v3.FilterConfig", "disabled": True}
    once = {} if safe else {"retry_policy": _retries(state, safe=False)}
    without = [ADMISSION] * bool(state.admission and not kind.guarded) + [ACCESS] * bool(state.tokens and kind.open)
    return {
        "match": _match(kind, hints),
        "response_headers_to_add": [_header("x-trimtab-version", "%UPSTREAM_METADATA(trimtab:version)%")],
        "route": {**target, "timeout": seconds(0 if kind.endless else state.patience.request_timeout), **once},
        **({"typed_per_filter_config": dict.fromkeys(without, disabled)} if without else {}),
    }


def _retries(state: GatewayState, safe: bool) -> Json:
    """When a request is tried again, and where."""
    patience = state.patience
    retry: Json = {
        "retry_on": "connect-failure,refused-stream",
        "num_retries": patience.retries,
        "retry_back_off": {"base_interval": seconds(patience.backoff), "max_interval": seconds(patience.backoff_max)},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": TYPE + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "host_selection_retry_max_attempts": 5,
        # Two tries in the request's own pool, the next two in the fallback, and so round.
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": TYPE + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 2,
            },
        },
    }
    if safe:
        alone = sum(len(set(pool.endpoints)) for pool in state.pools if pool.role != "canary") < 2
        retry["retry_on"] = "5xx,reset,connect-failure,refused-stream,unavailable,internal"  # the last two are gRPC's own
        retry["per_try_timeout"] = seconds(patience.hedge_after_alone if alone else patience.hedge_after)
    return retry


def _match(kind: Kind, hints: list[Json]) -> Json:
    method = {"name": ":method", "string_match": {"exact": kind.method}}
    return {"safe_regex": {"regex": kind.path}, "headers": [method, *hints], **({"grpc": {}} if kind.speech else {})}


def _say(status: int, words: str, match: Json) -> Json:
    return {"match": match, "direct_response": {"status": status, "body": {"inline_string": words}}}


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}

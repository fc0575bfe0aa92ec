"""What the gateway should do: the pools of one fleet, their weights and endpoints. Plain values, no Envoy words."""

from __future__ import annotations

import re

import msgspec

from trimtab.errors import SettingsError
from trimtab.messages import PoolRole

Endpoint = tuple[str, int]
"""Host (an IP address) and port of one replica's HTTP endpoint."""


class GatewayPool(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas of one version that take requests, and the share of traffic (percent) that is theirs.

    A replica that leaves `endpoints` gets no new request, and what it holds may finish. To free what a hanging replica
    holds, kill it once it has left: the connections break, and its requests are tried elsewhere.
    """

    version: int
    role: PoolRole
    weight: int
    endpoints: tuple[Endpoint, ...] = ()


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often the gateway tries before a client sees an error. All times in seconds.

    Trying twice is only right because inference changes nothing: a request may run on two replicas, and the first answer wins.
    """

    request_timeout: float = 15.0
    """The whole request, all tries included. Longer than a replacement replica takes to come up."""
    hedge_after: float = 1.0
    """A try that has not answered by then is joined by a second one on another replica (it is not given up)."""
    hedge_after_alone: float = 4.0
    """The same where the stable pool has a single replica and nothing to fall back on: a second try can only help once a
    replacement is there, and until then it is more load on a queue that may merely be long."""
    retries: int = 40
    """Tries after the first, each after a random back-off of at most `backoff_max`."""
    backoff: float = 0.025
    backoff_max: float = 1.0
    concurrent_retries: int = 250
    """Retries under way at one time, per version. Bounds what hedging adds to a saturated fleet: a queue of at most this
    many more requests, never a multiple of the traffic."""


class GatewayState(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of what one gateway does. `check` says in words what is wrong with it."""

    fleet: str
    listen_port: int
    admin_port: int
    """Always on loopback: whoever reaches it can stop Envoy."""
    pools: tuple[GatewayPool, ...] = ()
    patience: Patience = Patience()
    host: str = "127.0.0.1"
    """The address that `listen_port` and `metrics_port` are opened on."""
    metrics_port: int | None = None
    """Answers only /stats/prometheus and /ready, for scrapers and probes on other machines. None: only the admin port does."""


def cluster_name(fleet: str, version: int) -> str:
    """The name under which Envoy counts the requests of one version."""
    return f"{fleet}_v{version}"


def check(state: GatewayState) -> None:
    """Refuses a state that Envoy could not serve or that its metrics could not name. Raises SettingsError."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,126}", state.fleet):  # in Kubernetes <namespace>_<name>, 63 characters each
        raise SettingsError(f"fleet name {state.fleet!r} must be 1 to 127 lower-case letters, digits, '-' or '_'")
    versions = [pool.version for pool in state.pools]
    if len(set(versions)) != len(versions):
        raise SettingsError(f"fleet {state.fleet}: a version is in two pools: {sorted(versions)}")
    if sum(pool.role == "stable" for pool in state.pools) > 1:
        raise SettingsError(f"fleet {state.fleet}: more than one stable pool")
    for pool in state.pools:
        if pool.version < 0:
            raise SettingsError(f"fleet {state.fleet}: version {pool.version} is negative")
        if not 0 <= pool.weight <= 100:
            raise SettingsError(f"fleet {state.fleet}: weight {pool.weight} of version {pool.version} is not within 0..100")
    own = [("", port) for port in (state.listen_port, state.admin_port, state.metrics_port) if port is not None]
    for host, port in (*own, *(endpoint for pool in state.pools for endpoint in pool.endpoints)):
        if not 0 < port < 65536:
            raise SettingsError(f"fleet {state.fleet}: port {port} of {host or 'the gateway'} is not within 1..65535")

"""What the gateway should do: the pools of one fleet, their weights and endpoints, and its manners. No Envoy words."""

from __future__ import annotations

import re

import msgspec

from trimtab.errors import SettingsError
from trimtab.messages import PoolRole

Endpoint = tuple[str, int]
"""Host (an IP address) and port of one replica."""


class GatewayPool(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas of one version that take requests, and the share of traffic (percent) that is theirs.

    A replica that leaves `endpoints` gets no new request, and what it holds may finish. To free what a hanging replica
    holds, kill it once it has left: the connections break, and its requests are tried elsewhere.
    """

    version: int
    role: PoolRole
    weight: int
    endpoints: tuple[Endpoint, ...] = ()
    """Where the replicas speak HTTP."""
    grpc: tuple[Endpoint, ...] = ()
    """Where the same replicas speak gRPC; used where the state says that they do."""
    mirror: int = 0
    """Percent of all inference requests that are copied to this pool, beside its weight. Nobody waits for what it answers."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often the gateway tries before a client sees an error. All times in seconds.

    Trying twice is only right because inference changes nothing: a request may run on two replicas, and the first answer wins.
    What does change something (feedback, streams, whatever carries the header ``x-trimtab-retry: never``) is tried again
    only when it surely reached nobody.
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
    """Retries under way at one time, per version, that are always allowed: requests that wait for a replica are retries.
    Bounds what hedging adds to a saturated fleet: a queue of at most this many more requests, never a multiple of the traffic."""
    retry_percent: float = 20.0
    """Retries under way at one time, in percent of a version's requests under way, where that is more."""


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests may be under way at a time; those beyond are refused at once, with 503 and Retry-After.

    The limit moves: each `every` seconds the gateway compares how long the median request took with `target`. While that is
    shorter, the limit doubles, up to `most`; while it is longer, it shrinks by the ratio (at most to the half), down to `least`.
    A fleet that stands still for a moment refuses nobody, since nothing is answered and the limit stays; one that is
    overloaded has, seconds later, a queue that it can answer in about `target`.
    """

    target: float = 0.25
    """Seconds. What the median request may take: the 250 ms of the default SLO."""
    least: int = 100
    """Never refuse while fewer requests are under way. Latency under overload is at least this over the fleet's capacity."""
    most: int = 512
    """Always refuse beyond. More than arrive while the only replica is replaced: they wait."""
    every: float = 1.0
    retry_after: int = 1
    """Seconds that a refused client is asked to wait."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Files in PEM that Envoy reads, and reads again when something is renamed in their directory."""

    certificate: str
    key: str
    client_ca: str | None = None
    """Whose certificates clients must show. None: they need none."""


class Token(str):
    """A secret that does not show itself where a state is printed or logged."""

    def __repr__(self) -> str:
        return "Token(...)"


class GatewayState(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of what one gateway does. `check` says in words what is wrong with it."""

    fleet: str
    listen_port: int
    """HTTP/1.1, HTTP/2 and gRPC."""
    admin_port: int
    """Always on loopback: whoever reaches it can stop Envoy."""
    pools: tuple[GatewayPool, ...] = ()
    patience: Patience = Patience()
    host: str = "127.0.0.1"
    """The address that `listen_port` and `metrics_port` are opened on."""
    metrics_port: int | None = None
    """Answers only /stats/prometheus and /ready, for scrapers and probes on other machines. None: only the admin port does."""
    model: str | None = None
    """The fleet's model: a path that names it with a version goes to that version. None: such a path is like any other."""
    grpc: bool = False
    """Whether the replicas speak gRPC. Each version then costs Envoy a second watch."""
    admission: Admission | None = Admission()
    """None: nothing is refused. Like `tls`, and whether there are `tokens`, this is read once, when Envoy starts."""
    tls: Tls | None = None
    tokens: tuple[Token, ...] = ()
    """Requests must carry one of these as ``Authorization: Bearer ...``, all but those for health. Empty: nobody is asked."""


def cluster_name(fleet: str, version: int) -> str:
    """The name under which Envoy counts the requests of one version."""
    return f"{fleet}_v{version}"


def check(state: GatewayState) -> None:
    """Refuses a state that Envoy could not serve or that its metrics could not name. Raises SettingsError."""
    fleet = state.fleet
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,126}", fleet):  # in Kubernetes <namespace>_<name>, 63 characters each
        raise SettingsError(f"fleet name {fleet!r} must be 1 to 127 lower-case letters, digits, '-' or '_'")
    versions = [pool.version for pool in state.pools]
    if len(set(versions)) != len(versions):
        raise SettingsError(f"fleet {fleet}: a version is in two pools: {sorted(versions)}")
    if sum(pool.role == "stable" for pool in state.pools) > 1:
        raise SettingsError(f"fleet {fleet}: more than one stable pool")
    for pool in state.pools:
        if pool.version < 0:
            raise SettingsError(f"fleet {fleet}: version {pool.version} is negative")
        for what, share in (("weight", pool.weight), ("mirror", pool.mirror)):
            if not 0 <= share <= 100:
                raise SettingsError(f"fleet {fleet}: {what} {share} of version {pool.version} is not within 0..100")
    own = [("", port) for port in (state.listen_port, state.admin_port, state.metrics_port) if port is not None]
    for host, port in (*own, *(endpoint for pool in state.pools for endpoint in (*pool.endpoints, *pool.grpc))):
        if not 0 < port < 65536:
            raise SettingsError(f"fleet {fleet}: port {port} of {host or 'the gateway'} is not within 1..65535")
    limit = state.admission
    if limit and not (0 < limit.least <= limit.most and limit.target > 0 and limit.every > 0 and limit.retry_after >= 0):
        raise SettingsError(f"fleet {fleet}: admission needs 0 < least <= most and times above 0, not {limit}")
    if any(not re.fullmatch(r"[\x21-\x7e]+", token) for token in state.tokens) or len(set(state.tokens)) < len(state.tokens):
        raise SettingsError(f"fleet {fleet}: tokens must be printable ASCII without spaces, each once")

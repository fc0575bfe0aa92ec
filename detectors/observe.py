"""A closed tick to an observation: what every target said, as matrices of canonical signals, and how its scrape went."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.signals import (
    POOL,
    REPLICA,
    Pages,
    Reading,
    fleet_arrivals,
    gpu_values,
    pool_values,
    read,
    replica_values,
    versions_on,
    was_reset,
)
from detectors.ticks import Tick
from trimtab.messages import Role, Snapshot, nobody_listens

Matrix = npt.NDArray[np.float64]
RI = {name: i for i, name in enumerate(REPLICA)}
PI = {name: i for i, name in enumerate(POOL)}
LIVELY = 0.6
GONE_TICKS = 3  # a gateway of which the collectors say nothing for so long, not even that it fails, is no target any more
STRAIN_TICKS = 5
_QUICK = 0.05  # seconds: what answers within this is not strained, however quick it usually is
_USUAL_SHARE = 0.05  # how fast the usual length of a scrape follows
_RESETS = ("success", "failure", "request_us", "infer_us")


class Health(msgspec.Struct, frozen=True):
    """How the scrapes of one target went. `fails` and `silent` count ticks in a row; `same` unchanged pages in a row."""

    target: str
    role: Role
    pool: str | None
    version: int | None
    age: float
    up: bool
    ever_up: bool
    fails: int
    silent: int
    error: str | None
    same: int
    lively: bool
    """The page had changed in most ticks before."""
    reset: bool
    idle_before: bool
    """It served nothing in its last two good ticks."""
    strain: float
    """How many times longer than usual its scrapes took, at most over the last `STRAIN_TICKS`; 1.0 while that is not known."""


class Gpu(NamedTuple):
    """One GPU on a DCGM page of this tick; `pod` is the replica that runs on it ("" when the page does not say)."""

    target: str
    pod: str
    gpu: str
    values: dict[str, float]


class Observation(NamedTuple):
    """One tick of one fleet. Rows of `values` [n, REPLICA] and `residuals` [n, F] are `replicas`; unknown is NaN."""

    fleet: str
    tick: int
    time: float
    replicas: list[Health]
    values: Matrix
    residuals: Matrix
    versions: list[int]
    pools: Matrix
    arrivals: float
    others: list[Health]
    gpus: list[Gpu]

    def column(self, name: str) -> Matrix:
        """One signal of all replicas [n]."""
        return self.values[:, RI[name]]

    def pool(self, version: int, name: str) -> float:
        """One signal of a version's pool, NaN when unknown."""
        return float(self.pools[self.versions.index(version), PI[name]]) if version in self.versions else math.nan


class _Track(msgspec.Struct):
    role: Role
    first_seen: float
    pool: str | None = None
    version: int | None = None
    ever_up: bool = False
    fails: int = 0
    silent: int = 0
    error: str | None = None
    same: int = 0
    liveliness: float = 0.5
    served: list[float] = []
    time: float = math.nan
    values: dict[str, float] = {}
    digest: int = 0
    usual_took: float = math.nan
    strains: list[float] = []


class Observer:
    """Keeps the last page of every target and builds the observation of each tick."""

    def __init__(self, fleet: str) -> None:
        self.fleet = fleet
        self._tracks: dict[str, _Track] = {}

    def observe(self, tick: Tick) -> Observation:
        """The observation of a closed tick. Ticks must come in order."""
        present = set(tick.snapshots) | set(tick.silent)
        if tick.snapshots:  # in total silence nobody is forgotten
            self._tracks = {name: track for name, track in self._tracks.items() if name in present}
        pages = {name: self._take(snapshot) for name, snapshot in tick.snapshots.items()}
        for name in self._tracks.keys() - tick.snapshots.keys():
            self._tracks[name].silent += 1
        gpus = [
            Gpu(name, pod, gpu, values)
            for name, page in sorted(pages.items())
            if page and self._tracks[name].role == "gpu"
            for (pod, gpu), values in sorted(gpu_values(page[0]).items())
        ]
        by_pod = {gpu.pod: gpu.values for gpu in gpus}
        rows, replicas, others = [], [], []
        for name in sorted(self._tracks):
            track, page = self._tracks[name], pages.get(name)
            if track.role not in ("triton", "vllm"):
                others.append(self._health(name, tick, False))
                continue
            row = replica_values(page[0], page[1], by_pod.get(name, {})) if page else np.full(len(REPLICA), np.nan)
            reset = bool(page and page[1] and was_reset(page[0].values, page[1].values, _RESETS))
            replicas.append(self._health(name, tick, reset))
            rows.append(row)
            if page:
                served = row[RI["requests"]]
                track.served = [*track.served, float(served)][-2:]
        gateways, app = self._pages("gateway", pages), next(iter(self._pages("app", pages)), None)
        named = {h.version for h in replicas if h.version is not None}
        versions = sorted(named | versions_on(self.fleet, gateways, app))
        pools = np.array([pool_values(f"{self.fleet}_v{version}", version, gateways, app) for version in versions])
        pools = pools.reshape(len(versions), len(POOL))
        whole = self._all_gateways_said(gateways)
        if not whole:  # shares and latencies of those that answered are good; the number of requests is not known
            pools[:, PI["requests"]] = np.nan
        return Observation(
            self.fleet,
            tick.id,
            tick.end,
            replicas,
            np.array(rows).reshape(len(rows), len(REPLICA)),
            np.full((len(rows), 0), np.nan),
            versions,
            pools,
            fleet_arrivals(self.fleet, gateways) if whole else math.nan,
            others,
            gpus,
        )

    def _pages(self, role: Role, pages: dict[str, Pages | None]) -> list[Pages]:
        """The pages of this role in this tick, except stale ones: no arrivals on a frozen page does not mean no arrivals."""
        found = []
        for name, page in sorted(pages.items()):
            track = self._tracks[name]
            if page and track.role == role and not (track.same and track.liveliness > LIVELY):
                found.append(page)
        return found

    def _all_gateways_said(self, gateways: list[Pages]) -> bool:
        """Whether no gateway's count is missing. One that refuses connections or is spoken of no more serves nothing."""
        expected = sum(
            track.role == "gateway" and track.silent < GONE_TICKS and not (track.fails > 0 and nobody_listens(track.error))
            for track in self._tracks.values()
        )
        return sum(old is not None for _new, old in gateways) >= expected

    def _take(self, snapshot: Snapshot) -> Pages | None:
        track = self._tracks.get(snapshot.target)
        if track is None or track.role != snapshot.role:
            track = self._tracks[snapshot.target] = _Track(snapshot.role, snapshot.time)
        track.pool, track.version, track.silent = snapshot.pool, snapshot.version, 0
        if not snapshot.up or not snapshot.series:
            track.fails += 1
            track.error = snapshot.error or "the page was empty"
            return None
        track.ever_up, track.fails, track.error = True, 0, None
        _feel(track, snapshot.took)
        new = read(snapshot)
        old = None if math.isnan(track.time) else Reading(track.time, track.values, track.digest)
        changed = old is None or new.digest != old.digest
        track.same = 0 if changed else track.same + 1
        if old is not None and track.same <= 1:
            track.liveliness += 0.2 * (changed - track.liveliness)
        if changed or track.role in ("triton", "vllm") or track.liveliness <= LIVELY:
            # A frozen page keeps its old time: what it hid is spread over the whole of that time when it thaws.
            track.time, track.values, track.digest = new
        return new, old if old is None or new.time > old.time else None

    def _health(self, name: str, tick: Tick, reset: bool) -> Health:
        t = self._tracks[name]
        up = t.fails == 0 and t.silent == 0 and t.ever_up
        idle = len(t.served) == 2 and not any(s > 0 for s in t.served)
        age = tick.end - t.first_seen
        return Health(
            name,
            t.role,
            t.pool,
            t.version,
            age,
            up,
            t.ever_up,
            t.fails,
            t.silent,
            t.error,
            t.same,
            t.liveliness > LIVELY,
            reset,
            idle,
            max(t.strains, default=1.0),
        )

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {name: msgspec.to_builtins(track) for name, track in self._tracks.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._tracks = {name: msgspec.convert(track, _Track) for name, track in state.items()}


def _feel(track: _Track, took: float) -> None:
    """Takes in how long a scrape took. A long one moves the usual length by no more than twice it would."""
    usual = took if math.isnan(track.usual_took) else track.usual_took
    track.strains = [*track.strains, took / max(usual, _QUICK / 2)][-STRAIN_TICKS:] if took > _QUICK else track.strains[1:]
    track.usual_took = usual + _USUAL_SHARE * (min(took, 2 * usual) - usual)

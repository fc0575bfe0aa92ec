"""Several gateways, or several generators of traffic, as one: their counters are summed before anything is decided on them.

One target passes through as it is. From the second on, a *round* is complete when every target that is alive has reported since
the last one, or when one reports for the second time (the others are late then); a complete round gives one snapshot whose
counters are the sums. A counter that fell belongs to a target that restarted: the sums then begin anew at zero, so that
readers take the interval as unknown, as they do for a single gateway.

A target that is there but does not answer, or whose page is frozen, may still serve: the sum is unknown while it lasts, and
nothing is given. One that refuses connections, or of which nothing more is heard, is gone and no part of the sum.
"""

from __future__ import annotations

import hashlib

import msgspec

from trimtab.messages import Snapshot, nobody_listens

_READ = (
    "envoy_http_downstream_rq_total",
    "envoy_cluster_upstream_rq",
    "envoy_cluster_retry_upstream_rq",
    "trimtab_traffic_requests_total",
)
_FROZEN_SCRAPES = 3
_KEPT_SECONDS = 60.0


class Page(msgspec.Struct, frozen=True):
    """The last page of one target, alive at `time`, heard at `heard`. `unchanged`: how often all values were the same."""

    time: float
    heard: float
    counters: dict[str, float]
    digest: str = ""
    unchanged: int = 0
    reported: bool = False


class Merged(msgspec.Struct, frozen=True):
    """Targets of one role by name, and the sums of their counters since they were first seen."""

    pages: dict[str, Page] = {}
    mute: dict[str, float] = {}
    """Targets that are there and say nothing: name -> time of the last try."""
    totals: dict[str, float] = {}
    round: int = 0


def merge(memory: Merged, snapshot: Snapshot, stale_seconds: float) -> tuple[Merged, Snapshot | None]:
    """After one more snapshot: memory, and what is to be read now (None: the round is not complete, or the target is mute)."""
    before = memory.pages.get(snapshot.target)
    if before is not None and snapshot.time <= before.time:
        return memory, None
    now = snapshot.time
    kept = {name: page for name, page in memory.pages.items() if name != snapshot.target and now - page.heard <= _KEPT_SECONDS}
    others = {name: page for name, page in kept.items() if now - page.time <= stale_seconds}
    mute = {name: at for name, at in memory.mute.items() if name != snapshot.target and now - at <= stale_seconds}
    if not snapshot.up:
        mute |= {} if nobody_listens(snapshot.error) else {snapshot.target: now}
        return msgspec.structs.replace(memory, mute=mute), None if others else snapshot
    page = _page(snapshot, before)
    if not others:
        # Alone from the beginning, the page speaks for itself; alone again, the sums go on.
        first = memory.round == 0 and not kept
        totals = page.counters if first else _summed(memory.totals, before, page)
        merged = Merged({**kept, snapshot.target: page}, mute, totals, memory.round)
        alone = snapshot if first else _as_snapshot(snapshot, totals, merged.round)
        return merged, None if mute else alone
    if page.unchanged >= _FROZEN_SCRAPES - 1:
        page = msgspec.structs.replace(page, time=before.time if before else page.time)
        pages = {**kept, snapshot.target: page}
        return msgspec.structs.replace(memory, pages=pages, mute={**mute, snapshot.target: now}), None
    totals = _summed(memory.totals, before, page)
    second = before is not None and before.reported
    pages = {**kept, snapshot.target: msgspec.structs.replace(page, reported=True)}
    if not second and not all(pages[name].reported for name in others):
        return Merged(pages, mute, totals, memory.round), None
    pages = {name: msgspec.structs.replace(each, reported=second and name == snapshot.target) for name, each in pages.items()}
    merged = Merged(pages, mute, totals, memory.round + 1)
    return merged, None if mute else _as_snapshot(snapshot, totals, merged.round)


def _summed(totals: dict[str, float], before: Page | None, page: Page) -> dict[str, float]:
    if before is None:
        return totals  # what it counted before it was seen first is nobody's interval
    grown = {key: value - before.counters.get(key, 0.0) for key, value in page.counters.items()}
    if any(value < 0 for value in grown.values()) or any(key not in page.counters for key in before.counters):
        return dict.fromkeys(totals, 0.0)
    return totals | {key: totals.get(key, 0.0) + value for key, value in grown.items()}


def _page(snapshot: Snapshot, before: Page | None) -> Page:
    counters = {
        key: value for key, value in snapshot.series.items() if value is not None and value >= 0 and key.startswith(_READ)
    }
    text = "\n".join(f"{key} {value}" for key, value in sorted(snapshot.series.items()))
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    unchanged = before.unchanged + 1 if before is not None and before.digest == digest else 0
    return Page(snapshot.time, snapshot.time, counters, digest, unchanged)


def _as_snapshot(newest: Snapshot, totals: dict[str, float], number: int) -> Snapshot:
    # The number of the round makes two pages different even when no request came: the targets behind it are alive.
    series: dict[str, float | None] = {**totals, "trimtab_gateway_rounds": float(number)}
    return msgspec.structs.replace(newest, target=newest.role, series=series)

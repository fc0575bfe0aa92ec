"""Policies played over a list of requests: hits, and loads. Adapters are of one size, so Belady's rule is the bound."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from benchmarks.adapters.policies import Policy
from serving_stack.edge_model.trend import Trend

LOOK_EVERY = 50
"""Requests between two looks whether something should be fetched before it is asked for."""


@dataclass(frozen=True)
class Played:
    """What became of the requests: the share that found their adapter, and adapters that were moved (of them `prefetched`)."""

    hit_ratio: float
    moved: int
    prefetched: int = 0


def play(policy: Policy, asked: list[str]) -> Played:
    """Each miss is loaded and offered; the served policy may fetch before, as a replica does."""
    hits = moved = prefetched = 0
    for number, key in enumerate(asked, 1):
        if policy.ask(key):
            hits += 1
        else:
            moved += 1
            policy.put(key, 1)
        if isinstance(policy, Trend) and number % LOOK_EVERY == 0:
            for wanted in policy.wanted():
                prefetched += 1
                policy.put(wanted, 1)
    return Played(hits / len(asked), moved + prefetched, prefetched)


def clairvoyant(asked: list[str], places: int) -> Played:
    """Belady's rule with the choice to keep nothing: of those held and the new one, what is asked for latest (or never) goes.

    Belady, IBM Systems J. 5 (1966); no policy with `places` can have more hits when all are of one size.
    """
    never = len(asked)
    following, later = [never] * len(asked), dict[str, int]()
    for at in range(len(asked) - 1, -1, -1):
        following[at] = later.get(asked[at], never)
        later[asked[at]] = at
    held: dict[str, int] = {}
    latest: list[tuple[int, str]] = []
    hits = 0
    for at, key in enumerate(asked):
        hits += key in held
        if key not in held and len(held) >= places:
            while held.get(latest[0][1]) != -latest[0][0]:
                heapq.heappop(latest)
            if -latest[0][0] <= following[at]:
                continue
            del held[heapq.heappop(latest)[1]]
        held[key] = following[at]
        heapq.heappush(latest, (-following[at], key))
    return Played(hits / len(asked), len(asked) - hits)

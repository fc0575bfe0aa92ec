"""The policy that is served with: adapters are kept by how often they will be asked for, as seen through several memories.

Each adapter's requests are counted with several half-lives. A *view* weighs these counts: one believes the last moments (right
when requests come in sessions), another the long run (right when popularity hardly moves). Each view is played on the same
requests beside the real cache, with keys only, and the one that had the most hits lately decides: so the policy finds out
by itself how fast popularity drifts. After Lee et al., "LRFU", IEEE Trans. Computers 50 (2001), and Vietri et al., "LeCaR",
HotStorage 2018. Time is counted in requests. Numpy only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

HALF_LIVES = (60.0, 250.0, 1000.0, 4000.0)
"""Requests after which one request counts half."""
VIEWS = np.array(
    [
        (1.0, 0.0, 0.0, 0.0, 0.0),
        (0.5, 0.0, 0.0, 0.5, 0.0),
        (0.0, 0.5, 0.0, 0.5, 0.0),
        (0.0, 0.0, 0.5, 0.25, 0.25),
        (0.0, 0.0, 0.1, 0.3, 0.6),
    ]
)
"""From believing the last request alone (first column, as LRU does) to believing the long run; each row sums to 1."""
JUDGED_OVER = 2000.0
"""Half-life of the hits by which the views are compared, in requests."""
BETTER = 1.02
"""How much more hits another view must have had to take over: no flapping."""
SHOWN = 2
"""The memory whose shares are shown: that with a half-life of 250 requests."""
_ROOM = 64


class Trend:
    """What is held, by key and size in bytes; never more than `limit` bytes, of which `held` are taken."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self.view = 3
        """Which view decides now."""
        self._at: dict[str, int] = {}
        self._keys: list[str] = []
        self._sizes = np.zeros(_ROOM)  # 0: never loaded, so unknown
        self._counts = np.zeros((len(HALF_LIVES), _ROOM))  # in units that grow, so that what is old need not be touched
        self._kept = np.zeros((len(VIEWS) + 1, _ROOM), dtype=bool)  # by view, and last by the cache itself
        self._hits = np.zeros(len(VIEWS))
        self._last = np.zeros(_ROOM)  # when each was asked for last
        self._now = 0
        self._clock = 0.0  # the same as now, but it begins anew before exponents grow too large
        self._decay = np.array([math.log(2) / each for each in HALF_LIVES])

    def ask(self, key: str) -> bool:
        """A request for `key` came: whether it is held."""
        self._now += 1
        self._clock += 1
        if self._clock * self._decay[0] > 500:
            self._counts *= np.exp(-self._clock * self._decay)[:, None]
            self._clock = 0.0
        at = self._place(key)
        self._last[at] = self._now
        self._counts[:, at] += np.exp(self._clock * self._decay)
        self._hits *= 2 ** (-1 / JUDGED_OVER)
        hit = self._kept[:-1, at]
        self._hits += hit
        if self._sizes[at] > 0:
            for view in np.flatnonzero(~hit):
                self._make_room(int(view), at, VIEWS[view])
        best = int(self._hits.argmax())
        if self._hits[best] > BETTER * self._hits[self.view]:
            self.view = best
        return bool(self._kept[-1, at])

    def put(self, key: str, size: int) -> list[str] | None:
        """Hold `key`, which is not held: what went for it, or None when it is not worth its place (or is too large)."""
        at = self._place(key)
        first = self._sizes[at] == 0
        self._sizes[at] = size
        if first:
            for view, weights in enumerate(VIEWS):
                self._make_room(view, at, weights)
        gone = self._make_room(-1, at, VIEWS[self.view])
        if gone is None:
            return None
        self.held = int(self._sizes[self._kept[-1]].sum())
        return [self._keys[each] for each in gone]

    def wanted(self, most: int = 4, gain: float = 1.5) -> list[str]:
        """What to fetch before it is asked for: adapters expected `gain` times as often as the least that is held."""
        value = self._value(VIEWS[self.view])
        kept = self._kept[-1]
        if not kept.any():
            return []
        least = value[kept].min() if self.held + self._sizes.max() > self.limit else 0.0
        worth = np.flatnonzero(~kept & (self._sizes > 0) & (value > gain * least) & (value > 0))
        return [self._keys[each] for each in worth[np.argsort(-value[worth])][:most]]

    def shares(self) -> list[tuple[str, float]]:
        """Share of the requests that each known adapter has lately, the most popular first."""
        share = self._rates()[SHOWN][: len(self._keys)]
        return [(self._keys[each], float(share[each])) for each in np.argsort(-share)]

    def __contains__(self, key: str) -> bool:
        return key in self._at and bool(self._kept[-1, self._at[key]])

    def _rates(self) -> Any:
        """[memories, adapters]: one by the age of the last request; those with a half-life are shares of the requests."""
        shares = self._counts * (np.exp(-self._clock * self._decay) * self._decay)[:, None]
        return np.concatenate([1 / (1 + self._now - self._last)[None], shares])

    def _value(self, weights: Any) -> Any:
        """Expected requests per byte of each adapter; 0 where the size is not known."""
        return np.divide(weights @ self._rates(), self._sizes, out=np.zeros_like(self._sizes), where=self._sizes > 0)

    def _make_room(self, row: int, at: int, weights: Any) -> list[int] | None:
        """Let one adapter into one of the caches if it is worth more than what must go for it."""
        kept, size = self._kept[row], self._sizes[at]
        free = self.limit - self._sizes[kept].sum()
        gone: list[int] = []
        if size > free:
            value = self._value(weights)
            held = np.flatnonzero(kept)
            for each in held[np.argsort(value[held])]:
                if value[each] >= value[at]:
                    return None
                gone.append(int(each))
                free += self._sizes[each]
                if size <= free:
                    break
            else:
                return None
        kept[gone] = False
        kept[at] = True
        return gone

    def _place(self, key: str) -> int:
        if key not in self._at:
            self._at[key] = len(self._keys)
            self._keys.append(key)
            if len(self._keys) > len(self._sizes):
                self._sizes = np.concatenate([self._sizes, np.zeros_like(self._sizes)])
                self._last = np.concatenate([self._last, np.zeros_like(self._last)])
                self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)], axis=1)
                self._kept = np.concatenate([self._kept, np.zeros_like(self._kept)], axis=1)
        return self._at[key]

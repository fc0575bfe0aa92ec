"""W-TinyLFU: a small LRU window in front of a main part that newcomers enter only if asked for more often than who would go.

Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM Trans. Storage 13 (2017), with Caffeine's
segmented main part and its window that grows and shrinks by hill climbing (Einziger, Eytan, Friedman and Manes, "Adaptive
Software Cache Management", Middleware 2018). Adapters are hundreds, so counts are exact here, no sketch.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

PROTECTED = 0.8
"""Share of the main part for those that were asked for again."""
SAMPLE = 10
"""Counts are halved after this many requests for each one that is held."""
STEP = 0.0625
"""How far the window moves at first, as a share of all."""


class TinyLfu:
    """See `policies.Policy`."""

    def __init__(self, limit: int, window: float = 0.01) -> None:
        self.limit, self.held = limit, 0
        self._window_share = window
        self._sizes: dict[str, int] = {}
        self._parts: dict[str, OrderedDict[str, None]] = {name: OrderedDict() for name in ("window", "probation", "protected")}
        self._bytes = dict.fromkeys(self._parts, 0)
        self._counts: Counter[str] = Counter()
        self._asked = 0
        self._hits, self._seen, self._before, self._step = 0, 0, 0.0, STEP

    def ask(self, key: str) -> bool:
        """See `Policy`."""
        self._count(key)
        hit = key in self._sizes
        self._hits += hit
        self._seen += 1
        self._climb()
        if not hit:
            return False
        part = self._part_of(key)
        if part == "probation":
            self._move(key, "probation", "protected")
            self._demote()
        else:
            self._parts[part].move_to_end(key)
        return True

    def put(self, key: str, size: int) -> list[str] | None:
        """See `Policy`. It enters the window; what falls out of that competes with the least of the main part."""
        if size > self.limit:
            return None
        self._sizes[key] = size
        self._enter(key, "window")
        self.held += size
        return self._settle()  # never the newcomer: it is the newest of the window

    def drop(self, key: str) -> None:
        """See `Policy`."""
        if key in self._sizes:
            part = self._part_of(key)
            del self._parts[part][key]
            self._bytes[part] -= self._sizes[key]
            self.held -= self._sizes.pop(key)

    def __contains__(self, key: str) -> bool:
        return key in self._sizes

    def _settle(self) -> list[str]:
        """Bring the window and the whole under their limits; what went."""
        gone: list[str] = []
        window, probation = self._parts["window"], self._parts["probation"]
        while self._bytes["window"] > self._window_share * self.limit and len(window) > 1:
            self._move(next(iter(window)), "window", "probation")
            if self.held > self.limit:
                gone += self._duel()
        while self.held > self.limit:
            gone += (
                self._duel() if len(probation) > 1 else self._evict(next(iter(probation or self._parts["protected"] or window)))
            )
        return gone

    def _duel(self) -> list[str]:
        """Of the newest in probation and the oldest there, the one asked for less goes."""
        probation = self._parts["probation"]
        candidate, victim = next(reversed(probation)), next(iter(probation))
        if candidate == victim and self._parts["protected"]:
            victim = next(iter(self._parts["protected"]))
        return self._evict(victim if self._counts[candidate] > self._counts[victim] else candidate)

    def _evict(self, key: str) -> list[str]:
        self.drop(key)
        return [key]

    def _count(self, key: str) -> None:
        self._counts[key] += 1
        self._asked += 1
        if self._asked >= SAMPLE * max(16, len(self._sizes)):
            self._asked //= 2
            self._counts = Counter({k: n // 2 for k, n in self._counts.items() if n > 1})

    def _climb(self) -> None:
        """Move the window's share the way in which the hit ratio grew; turn when it fell; smaller steps as it settles."""
        if self._seen < SAMPLE * max(16, len(self._sizes)):
            return
        ratio = self._hits / self._seen
        if abs(ratio - self._before) >= 0.05:
            self._step = STEP if self._step > 0 else -STEP
        if ratio < self._before:
            self._step = -self._step
        self._window_share = min(0.8, max(0.01, self._window_share + self._step))
        self._step *= 0.98
        self._hits, self._seen, self._before = 0, 0, ratio

    def _demote(self) -> None:
        limit = PROTECTED * (1 - self._window_share) * self.limit
        while self._bytes["protected"] > limit and len(self._parts["protected"]) > 1:
            self._move(next(iter(self._parts["protected"])), "protected", "probation")

    def _part_of(self, key: str) -> str:
        return next(name for name, keys in self._parts.items() if key in keys)

    def _move(self, key: str, start: str, end: str) -> None:
        del self._parts[start][key]
        self._bytes[start] -= self._sizes[key]
        self._enter(key, end)

    def _enter(self, key: str, part: str) -> None:
        self._parts[part][key] = None
        self._bytes[part] += self._sizes[key]

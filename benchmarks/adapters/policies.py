"""What a policy of a byte-bounded cache is, and the two that everybody knows, to compare with: LRU and LFU.

`ask` says that a request came and whether its adapter is held, `put` offers one that was loaded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol


class Policy(Protocol):
    """What is held, by key and size in bytes; never more than `limit` bytes."""

    limit: int
    held: int
    """Bytes."""

    def ask(self, key: str) -> bool:
        """A request for `key` came: whether it is held."""

    def put(self, key: str, size: int) -> list[str] | None:
        """Hold `key`, which is not held: what went for it, or None when it is not worth its place (or is too large)."""

    def __contains__(self, key: str) -> bool:
        """Whether it is held; no request."""


class Lru:
    """The one that was asked for longest ago goes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def ask(self, key: str) -> bool:
        """See `Policy`."""
        if key not in self._sizes:
            return False
        self._sizes.move_to_end(key)
        return True

    def put(self, key: str, size: int) -> list[str] | None:
        """See `Policy`."""
        if size > self.limit:
            return None
        gone = []
        while self.held + size > self.limit:
            gone.append(next(iter(self._sizes)))
            self.drop(gone[-1])
        self._sizes[key] = size
        self.held += size
        return gone

    def drop(self, key: str) -> None:
        """See `Policy`."""
        self.held -= self._sizes.pop(key, 0)

    def __contains__(self, key: str) -> bool:
        return key in self._sizes


class Lfu:
    """The one that was asked for least often since it came goes; of equals, the one asked for longest ago."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._sizes: dict[str, int] = {}
        self._asked: dict[str, tuple[int, int]] = {}
        self._clock = 0

    def ask(self, key: str) -> bool:
        """See `Policy`."""
        self._clock += 1
        if key not in self._sizes:
            return False
        self._asked[key] = self._asked[key][0] + 1, self._clock
        return True

    def put(self, key: str, size: int) -> list[str] | None:
        """See `Policy`."""
        if size > self.limit:
            return None
        gone = []
        while self.held + size > self.limit:
            gone.append(min(self._asked, key=self._asked.__getitem__))
            self.drop(gone[-1])
        self._sizes[key], self._asked[key] = size, (1, self._clock)
        self.held += size
        return gone

    def drop(self, key: str) -> None:
        """See `Policy`."""
        self.held -= self._sizes.pop(key, 0)
        self._asked.pop(key, None)

    def __contains__(self, key: str) -> bool:
        return key in self._sizes

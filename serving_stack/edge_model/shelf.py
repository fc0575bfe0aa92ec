"""The adapters that a replica holds in memory: at most so many bytes, fetched when asked for, or before.

One lock guards the bookkeeping; files are fetched and read outside of it, each adapter once at a time.
Runs inside Triton: nothing of trimtab.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from adapters import Adapter, Shapes, Unfit, check_file, read  # type: ignore[import-not-found]
from source import Away, Source  # type: ignore[import-not-found]
from trend import Trend  # type: ignore[import-not-found]

Why = Literal["miss", "prefetch"]
REMEMBER_FAILURE_SECONDS = 5.0
"""How long a broken adapter is not fetched again: its requests fail at once."""


class Observer(Protocol):
    """What is told about the shelf's work."""

    def loaded(self, why: Why, size: int, seconds: float) -> None:
        """`size` bytes of files were moved, and read, in so many seconds."""

    def evicted(self, count: int) -> None:
        """So many adapters went for another one."""

    def refused(self) -> None:
        """An adapter was answered with, but is not worth a place."""

    def failed(self, why: Why) -> None:
        """An adapter could not be had."""


@dataclass(frozen=True)
class Failure:
    """An adapter that cannot be had, why, and until when (monotonic) nobody tries again."""

    words: str
    broken: bool
    until: float


class Shelf:
    """`known` is the set's: adapter -> {"version": n, "files": {name: {"sha256": ..., "bytes": n}}}."""

    def __init__(
        self, known: Mapping[str, Any], source: Source, shapes: Shapes, limit: int, observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.known, self.limit = known, limit
        self._source, self._shapes, self._observer, self._clock = source, shapes, observer, clock
        self._policy = Trend(limit)
        self._held: dict[str, Adapter] = {}
        self._coming: dict[str, Future[Adapter]] = {}
        self._failures: dict[str, Failure] = {}
        self._lock = threading.Lock()

    def ask(self, name: str) -> Adapter | None:
        """A request for a known adapter came: the adapter when it is held, None when it has to be loaded."""
        with self._lock:
            self._policy.ask(name)
            return self._held.get(name)

    def load(self, name: str, why: Why = "miss") -> Adapter:
        """The adapter, fetched if need be; it may not be worth a place, and is then only returned.

        Raises `Away` when its files cannot be had now, `Unfit` when they are not what was published or do not fit.
        """
        with self._lock:
            if (held := self._held.get(name)) is not None:
                return held
            failure = self._failures.get(name)
            if failure is not None and self._clock() < failure.until:
                raise (Unfit if failure.broken else Away)(failure.words)
            coming = self._coming.get(name)
            mine = coming is None
            if coming is None:
                coming = self._coming[name] = Future()
        if mine:
            self._fetch(name, why, coming)
        return coming.result()

    def prefetch(self) -> list[str]:
        """Load what will be asked for more than the least of what is held; what was loaded. Called now and then."""
        with self._lock:
            wanted = self._policy.wanted()
        return [name for name in wanted if self._try(name)]

    def warm(self, names: list[str], until: float) -> list[str]:
        """Load these, the most popular first, while there is room and before `until` (monotonic); what was loaded."""
        done = []
        for name in names:
            if self._clock() >= until:
                break
            if name not in self.known or name in self._held:
                continue
            with self._lock:
                largest = max((each.bytes for each in self._held.values()), default=0)
                if self._policy.held + largest > self.limit:
                    break
            if self._try(name):
                done.append(name)
        return done

    def shares(self) -> list[tuple[str, float]]:
        """Share of the requests of each adapter lately, the most popular first."""
        with self._lock:
            found: list[tuple[str, float]] = self._policy.shares()
            return found

    def holds(self) -> tuple[int, int]:
        """How many adapters are held, and their bytes in memory."""
        with self._lock:
            return len(self._held), self._policy.held

    def _try(self, name: str) -> bool:
        try:
            self.load(name, "prefetch")
        except (Away, Unfit):
            return False
        return name in self._held

    def _fetch(self, name: str, why: Why, coming: Future[Adapter]) -> None:
        began = self._clock()
        about = self.known[name]
        try:
            files = self._source.fetch(name, about["version"], about["files"])
            for file, content in files.items():
                check_file(file, content, about["files"][file]["sha256"])
            adapter = read(files, self._shapes)
        except Exception as error:  # whatever it is, who waits must hear of it
            broken = not isinstance(error, Away)
            words = f"adapter {name} version {about['version']} {'is broken' if broken else 'is not to be had'}: {error}"
            with self._lock:
                self._failures[name] = Failure(words, broken, self._clock() + REMEMBER_FAILURE_SECONDS)
                del self._coming[name]
            self._observer.failed(why)
            coming.set_exception((Unfit if broken else Away)(words))
            return
        self._observer.loaded(why, sum(map(len, files.values())), self._clock() - began)
        with self._lock:
            gone = self._policy.put(name, adapter.bytes)
            if gone is not None:
                self._held[name] = adapter
                for each in gone:
                    del self._held[each]
            self._failures.pop(name, None)
            del self._coming[name]
        if gone is None:
            self._observer.refused()
        elif gone:
            self._observer.evicted(len(gone))
        coming.set_result(adapter)

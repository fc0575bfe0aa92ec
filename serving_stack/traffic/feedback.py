"""Labels that become known later: what the right answers were is told to the versions that gave answers, some time after."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque

from serving_stack.traffic.client import Client

EVERY = 1.0
"""Seconds between two rounds of telling."""
MOST = 256
"""Answers in one request, as many as the model that takes them allows."""


class Feedback:
    """Remembers answers and tells them in batches per version once they are `after` seconds old."""

    def __init__(self, client: Client, after: float) -> None:
        self.told = 0
        self.failed: Counter[str] = Counter()
        """Answers that could not be told, by why."""
        self._client = client
        self._after = after
        self._known: deque[tuple[float, str, str, str]] = deque()

    def learn(self, version: str, answered: str, right: str) -> None:
        """An answer by `version`, and what it should have been."""
        self._known.append((time.monotonic() + self._after, version, answered, right))

    async def run(self) -> None:
        """Tells until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.tell(time.monotonic())

    async def tell(self, until: float) -> None:
        """Tells all that is due at `until` (monotonic). Infinity: everything."""
        due: dict[str, list[tuple[str, str]]] = {}
        while self._known and self._known[0][0] <= until:
            _, version, answered, right = self._known.popleft()
            due.setdefault(version, []).append((answered, right))
        for version, answers in due.items():
            for first in range(0, len(answers), MOST):
                batch = answers[first : first + MOST]
                error = await self._client.tell(version, batch)
                if error is None:
                    self.told += len(batch)
                else:
                    self.failed[error] += len(batch)

    def summary(self) -> dict[str, object]:
        return {"told": self.told, "failed": sum(self.failed.values()), "failed_kinds": dict(self.failed)}

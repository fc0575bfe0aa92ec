"""The open loop: sends each request at its time, whatever became of the ones before, and waits for answers beside that."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from serving_stack.traffic.arrivals import arrival_blocks
from serving_stack.traffic.client import Client, Reply, connect
from serving_stack.traffic.feedback import Feedback
from serving_stack.traffic.plan import Plan
from serving_stack.traffic.questions import Question
from serving_stack.traffic.tally import UNKNOWN, Outcome, Result
from serving_stack.traffic.target import Target

DROPPED = "dropped: too many requests in flight"


class Generator:
    """Sends a plan's requests. `on_result` is called once for every request that came to an end, in the event loop."""

    def __init__(
        self, plan: Plan, target: Target, questions: Sequence[Question], start_at: float, on_result: Callable[[Result], None]
    ) -> None:
        self.scheduled = 0
        self.unfinished = 0
        self.behind = 0.0
        """The latest that a request was ever sent after its time, seconds. Large means that this machine is too busy."""
        self._plan = plan
        self._target = target
        self._questions = itertools.cycle(questions)
        self._adapters = _drawn(target, plan.seed)
        self._on_result = on_result
        self.feedback: Feedback | None = None
        """What versions were told of their answers, if the target wants that. There from the start of `run` on."""
        # One clock for all: wall time at the start, monotonic from there on.
        self._offset = time.time() - time.monotonic()
        self._zero = start_at - self._offset
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until the plan ends or `stop` is set, then waits for open answers: as long as a client would, or, when
        stopped, two seconds. What is open then is in `unfinished`, neither right nor wrong. Raises SettingsError or Missing for a
        target that cannot be asked, before anything is sent."""
        client = connect(self._target)
        stopped: asyncio.Task[object] = asyncio.create_task(stop.wait())
        telling: asyncio.Task[None] | None = None
        if self._target.feedback_after is not None:
            self.feedback = Feedback(client, self._target.feedback_after)
            telling = asyncio.create_task(self.feedback.run())
        try:
            await self._send_all(client, stopped)
            while self._tasks and not stopped.done():
                await asyncio.wait([*self._tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=2.0)
            left = list(self._tasks)
            self.unfinished = len(left)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            if self.feedback is not None:
                await self.feedback.tell(math.inf)
        finally:
            stopped.cancel()
            if telling is not None:
                telling.cancel()
            await client.close()

    async def _send_all(self, client: Client, stopped: asyncio.Task[object]) -> None:
        for block in arrival_blocks(self._plan):
            for at in block.tolist():
                delay = self._zero + at - time.monotonic()
                if delay > 0:
                    await asyncio.wait([stopped], timeout=delay)
                if stopped.done():
                    return
                self._send(client, at)
            await asyncio.sleep(0)  # blocks may be empty for long
            if stopped.done():
                return
        if math.isfinite(self._plan.end):
            await asyncio.wait([stopped], timeout=max(0.0, self._zero + self._plan.end - time.monotonic()))
        else:
            await stopped  # every rate is zero from here on: nothing more to send

    def _send(self, client: Client, at: float) -> None:
        self.scheduled += 1
        self.behind = max(self.behind, time.monotonic() - self._zero - at)
        question, adapter = next(self._questions), next(self._adapters)
        if len(self._tasks) >= self._target.max_in_flight:
            self._end(at, adapter, question, Reply(error=DROPPED))
            return
        task = asyncio.create_task(self._ask(client, at, question, adapter))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, client: Client, at: float, question: Question, adapter: str | None) -> None:
        reply = await client.ask(question, adapter)
        if self.feedback is not None and reply.error is None:
            self.feedback.learn(reply.version, reply.label, question.label)
        self._end(at, adapter, question, reply)

    def _end(self, at: float, adapter: str | None, question: Question, reply: Reply) -> None:
        outcome: Outcome = "error" if reply.error is not None else "ok" if reply.label == question.label else "wrong"
        intended = self._zero + at
        result = Result(
            time=round(intended + self._offset, 4),
            at=round(at, 4),
            latency=round(time.monotonic() - intended, 5),
            outcome=outcome,
            version=reply.version or UNKNOWN,
            assigned=reply.assigned,
            attempts=reply.attempts,
            adapter=adapter,
            error=reply.error,
        )
        self._on_result(result)


def _drawn(target: Target, seed: int) -> Iterator[str | None]:
    """The adapter of each request, drawn by popularity, the same for the same seed; None without adapters."""
    if not target.adapters:
        yield from itertools.repeat(None)
    weights = np.arange(1, len(target.adapters) + 1, dtype=np.float64) ** -target.skew
    up_to = np.cumsum(weights / weights.sum())
    rng = np.random.default_rng([seed, len(target.adapters)])
    while True:
        for place in np.searchsorted(up_to, rng.random(1024), side="right"):
            yield target.adapters[min(int(place), len(target.adapters) - 1)]

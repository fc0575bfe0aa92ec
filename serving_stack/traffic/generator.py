"""The open loop: sends each request at its time, whatever became of the ones before, and waits for answers beside that."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Sequence

import aiohttp
import msgspec

from serving_stack.traffic.arrivals import arrival_blocks
from serving_stack.traffic.plan import Plan
from serving_stack.traffic.questions import Question, read_answer
from serving_stack.traffic.tally import UNKNOWN, Outcome, Result

DROPPED = "dropped: too many requests in flight"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go and how long the client waits. `max_in_flight` bounds memory: beyond it a request counts as an error."""

    url: str
    model: str
    timeout: float = 20.0
    max_in_flight: int = 5000

    @property
    def infer_url(self) -> str:
        return f"{self.url.rstrip('/')}/v2/models/{self.model}/infer"


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
        self._on_result = on_result
        # One clock for all: wall time at the start, monotonic from there on.
        self._offset = time.time() - time.monotonic()
        self._zero = start_at - self._offset
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until the plan ends or `stop` is set, then waits for open answers: as long as a client would, or, when
        stopped, two seconds. What is open then is in `unfinished`, neither right nor wrong."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        timeout = aiohttp.ClientTimeout(total=self._target.timeout)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            stopped: asyncio.Task[object] = asyncio.create_task(stop.wait())
            await self._send_all(session, stopped)
            while self._tasks and not stopped.done():
                await asyncio.wait([*self._tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=2.0)
            stopped.cancel()
            left = list(self._tasks)
            self.unfinished = len(left)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _send_all(self, session: aiohttp.ClientSession, stopped: asyncio.Task[object]) -> None:
        for block in arrival_blocks(self._plan):
            for at in block.tolist():
                delay = self._zero + at - time.monotonic()
                if delay > 0:
                    await asyncio.wait([stopped], timeout=delay)
                if stopped.done():
                    return
                self._send(session, at)
        if math.isfinite(self._plan.end):
            await asyncio.wait([stopped], timeout=max(0.0, self._zero + self._plan.end - time.monotonic()))
        else:
            await stopped  # every rate is zero from here on: nothing more to send

    def _send(self, session: aiohttp.ClientSession, at: float) -> None:
        self.scheduled += 1
        self.behind = max(self.behind, time.monotonic() - self._zero - at)
        question = next(self._questions)
        if len(self._tasks) >= self._target.max_in_flight:
            self._end(at, "error", error=DROPPED)
            return
        task = asyncio.create_task(self._ask(session, at, question))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, session: aiohttp.ClientSession, at: float, question: Question) -> None:
        # Triton compresses for whoever allows it: work for both sides that a short answer does not repay.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        try:
            async with session.post(self._target.infer_url, data=question.body, headers=headers) as response:
                body = await response.read()
        except TimeoutError:
            self._end(at, "error", error=f"no answer within {self._target.timeout:g} s")
            return
        except (aiohttp.ClientError, OSError) as error:
            self._end(at, "error", error=type(error).__name__)
            return
        assigned = response.headers.get("x-trimtab-assigned")
        tries = response.headers.get("x-envoy-attempt-count", "1")
        attempts = int(tries) if tries.isdigit() else 1
        if response.status != 200:
            self._end(at, "error", error=f"HTTP {response.status}", assigned=assigned, attempts=attempts)
            return
        try:
            version, label = read_answer(body)
        except (ValueError, msgspec.DecodeError):
            self._end(at, "error", error="not an inference answer", assigned=assigned, attempts=attempts)
            return
        outcome: Outcome = "ok" if label == question.label else "wrong"
        self._end(at, outcome, version=version, assigned=assigned, attempts=attempts)

    def _end(
        self,
        at: float,
        outcome: Outcome,
        *,
        version: str = UNKNOWN,
        assigned: str | None = None,
        attempts: int = 1,
        error: str | None = None,
    ) -> None:
        intended = self._zero + at
        result = Result(
            time=round(intended + self._offset, 4),
            at=round(at, 4),
            latency=round(time.monotonic() - intended, 5),
            outcome=outcome,
            version=version,
            assigned=assigned,
            attempts=attempts,
            error=error,
        )
        self._on_result(result)

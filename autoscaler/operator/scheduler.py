"""Runs one task per fleet in a few threads: when it is due, when it is woken, and never twice at a time; what is urgent first."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

Run = Callable[[], float]
_AFTER_A_BUG_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 0.5


class _Task:
    def __init__(self, run: Run) -> None:
        self.run, self.due, self.started = run, 0.0, 0.0
        self.running = self.gone = False
        self.woken: float | None = None
        self.urgent = False


class Scheduler:
    """`add` a task that returns the seconds until it is due again. `hasty_seconds`: least pause when woken without urgency.

    A task that is woken with urgency is taken before all others that are due: with many fleets a finding must not wait for them.
    """

    def __init__(self, workers: int, hasty_seconds: float) -> None:
        self._workers, self._hasty = workers, hasty_seconds
        self._tasks: dict[str, _Task] = {}
        self._urgent: deque[tuple[str, _Task]] = deque()
        self._heap: list[tuple[float, int, str]] = []
        self._count = 0
        lock = threading.Lock()
        self._change, self._rest = threading.Condition(lock), threading.Condition(lock)
        self._threads: list[threading.Thread] = []
        self._timed = False  # one worker waits for the next task's time, the others for a word
        self._ending = self._ended = False

    def start(self, stop: threading.Event) -> None:
        """Runs tasks until `stop` is set or `join` is called."""
        for number in range(self._workers):
            thread = threading.Thread(target=self._work, args=(stop,), name=f"fleet-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self) -> None:
        """Ends, and waits for the steps that run."""
        with self._change:
            self._ending = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()
        with self._change:
            self._ended = True
            self._rest.notify_all()

    def add(self, key: str, run: Run) -> None:
        """A new task, due at once; one of this name is replaced."""
        with self._change:
            self._tasks[key] = task = _Task(run)
            self._push(key, task, time.monotonic())

    def remove(self, key: str, timeout: float = 10.0) -> bool:
        """Takes a task away; returns whether it runs no more, waiting up to `timeout` seconds for a step that runs."""
        with self._change:
            task = self._tasks.pop(key, None)
            if task is None:
                return True
            task.gone = True
            return self._rest.wait_for(lambda: self._ended or not task.running, timeout)

    def wake(self, key: str, urgent: bool = False) -> None:
        """Something is new for this task."""
        with self._change:
            task = self._tasks.get(key)
            if task is None:
                return
            task.urgent = task.urgent or urgent
            at = time.monotonic() if urgent else max(time.monotonic(), task.started + self._hasty)
            if task.running:
                task.woken = min(at, task.woken) if task.woken is not None else at
            elif urgent or at < task.due:
                self._push(key, task, at)

    def _push(self, key: str, task: _Task, due: float) -> None:
        task.due = due
        if task.urgent:
            self._urgent.append((key, task))
            self._change.notify()
            return
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))
        if self._heap[0][1] == self._count:
            self._change.notify_all()  # whoever waits for the next one's time waits for too long

    def _work(self, stop: threading.Event) -> None:
        while True:
            with self._change:
                picked = self._pick(stop)
            if picked is None:
                return
            self._step(*picked)

    def _pick(self, stop: threading.Event) -> tuple[str, _Task] | None:
        """The next task that is due, waiting for it; None at the end."""
        while not (self._ending or stop.is_set()):
            now = time.monotonic()
            found = self._next(now)
            if found is not None:
                task = found[1]
                task.running, task.started, task.woken, task.urgent = True, now, None, False
                self._change.notify()  # somebody else looks after what comes next
                return found
            if self._timed:
                self._change.wait(_LONGEST_WAIT_SECONDS)
                continue
            self._timed = True
            pause = min(self._heap[0][0] - now, _LONGEST_WAIT_SECONDS) if self._heap else _LONGEST_WAIT_SECONDS
            self._change.wait(max(0.001, pause))
            self._timed = False
        return None

    def _next(self, now: float) -> tuple[str, _Task] | None:
        while self._urgent:
            key, task = self._urgent.popleft()
            if task.urgent and not task.running and not task.gone and self._tasks.get(key) is task:
                return key, task
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            known = self._tasks.get(key)
            if known is not None and not known.running and known.due == due:
                return key, known
        return None

    def _step(self, key: str, task: _Task) -> None:
        try:
            pause = task.run()
        except Exception:  # one fleet's bug must not stop the others
            log.exception("a step of %s ended with a bug", key)
            pause = _AFTER_A_BUG_SECONDS
        with self._change:
            task.running = False
            due = time.monotonic() + pause
            if task.woken is not None:
                due = min(due, task.woken)
            if not task.gone:
                self._push(key, task, due)
            self._rest.notify_all()

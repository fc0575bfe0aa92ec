"""Runs one task per fleet in a few threads: when it is due, when it is woken, and never twice at a time."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger(__name__)

Run = Callable[[], float]
_AFTER_A_BUG_SECONDS = 5.0


class _Task:
    def __init__(self, run: Run) -> None:
        self.run, self.due, self.started = run, 0.0, 0.0
        self.running = self.gone = False
        self.woken: float | None = None


class Scheduler:
    """`add` a task that returns the seconds until it is due again. `hasty_seconds`: least pause when woken without urgency."""

    def __init__(self, workers: int, hasty_seconds: float) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="fleet")
        self._hasty = hasty_seconds
        self._tasks: dict[str, _Task] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._count = 0
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False

    def start(self, stop: threading.Event) -> None:
        """Runs tasks until `stop` is set and `join` is called."""
        self._thread = threading.Thread(target=self._loop, args=(stop,), name="scheduler", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Waits for the steps that run."""
        with self._change:
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join(5.0)
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._change:
            self._ended = True
            self._change.notify_all()

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
            return self._change.wait_for(lambda: self._ended or not task.running, timeout)

    def wake(self, key: str, urgent: bool = False) -> None:
        """Something is new for this task."""
        with self._change:
            task = self._tasks.get(key)
            if task is None:
                return
            at = time.monotonic() if urgent else max(time.monotonic(), task.started + self._hasty)
            if task.running:
                task.woken = min(at, task.woken) if task.woken is not None else at
            elif at < task.due:
                self._push(key, task, at)

    def _push(self, key: str, task: _Task, due: float) -> None:
        task.due = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))
        self._change.notify_all()

    def _loop(self, stop: threading.Event) -> None:
        with self._change:
            while not stop.is_set():
                now = time.monotonic()
                while self._heap and self._heap[0][0] <= now:
                    due, _, key = heapq.heappop(self._heap)
                    task = self._tasks.get(key)
                    if task is None or task.running or task.due != due:
                        continue
                    task.running, task.started, task.woken = True, now, None
                    self._pool.submit(self._step, key, task)
                pause = min(self._heap[0][0] - now, 0.5) if self._heap else 0.5
                self._change.wait(max(0.001, pause))

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
            self._change.notify_all()

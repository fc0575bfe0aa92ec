"""The supervisor: all child processes of one run, in one folder with a log for each.

    with Supervisor(Path("/tmp/run")) as supervisor:
        supervisor.start([ProcessSpec("kafka", argv), ProcessSpec("collect", argv, after=("kafka",))])

Processes start side by side as soon as those they come `after` are ready, and stop in reverse order. None outlives the
supervisor, however that ends: see `embedded.leash`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import TracebackType

import psutil

from embedded import ports
from embedded.leash import descendants
from embedded.process import ENDED, Event, Process, ProcessFailed, ProcessSpec, State

__all__ = ["Event", "Process", "ProcessFailed", "ProcessSpec", "Row", "Supervisor"]

MEMORY_EVERY_SECONDS = 1.0
PORT_ATTEMPTS = 3


@dataclass(frozen=True)
class Row:
    """One line of the table of processes."""

    name: str
    state: State
    since: float
    pid: int | None
    restarts: int
    exit_code: int | None
    error: str | None


class Supervisor:
    """Owns child processes. `folder` gets ``<name>.log`` of each; watching threads call `on_event`, which must be quick."""

    def __init__(self, folder: Path, on_event: Callable[[Event], None] = lambda event: None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.peak_memory_bytes = 0
        self._on_event = on_event
        self._processes: dict[str, Process] = {}
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._meter = threading.Thread(target=self._measure, name="memory", daemon=True)
        self._meter.start()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def spawn(self, spec: ProcessSpec, on_event: Callable[[Event], None] | None = None) -> Process:
        """Start one process and return at once. A name may be used again after its process has ended."""

        def tell(event: Event) -> None:
            self._on_event(event)
            if on_event is not None:
                on_event(event)

        with self._lock:
            if self._stopped.is_set():
                raise ProcessFailed(f"{spec.name} is not started: the supervisor is stopping.")
            previous = self._processes.pop(spec.name, None)
            if previous is not None and previous.state not in ENDED and previous.state != "exited":
                self._processes[spec.name] = previous
                raise ProcessFailed(f"{spec.name} runs already.")
            process = Process(spec, self.folder / f"{spec.name}.log", tell)
            self._processes[spec.name] = process
            process.start()
        return process

    def start(self, specs: Sequence[ProcessSpec]) -> None:
        """Start all, each once those it comes `after` are ready; returns when all are ready.

        Raises `ProcessFailed` as soon as one fails; those already started keep running until `stop`.
        """
        by_name = {spec.name: spec for spec in specs}
        for spec in specs:
            if missing := set(spec.after) - set(by_name) - set(self._processes):
                raise ProcessFailed(f"{spec.name} is to start after {', '.join(sorted(missing))}, which nobody starts.")
        order = TopologicalSorter({spec.name: set(spec.after) & set(by_name) for spec in specs})
        try:
            order.prepare()
        except CycleError as error:
            raise ProcessFailed(f"These processes wait for each other: {', '.join(error.args[1])}.") from error
        pool = ThreadPoolExecutor(len(by_name) or 1, thread_name_prefix="start")
        running: dict[Future[None], str] = {}
        try:
            while order.is_active():
                running |= {pool.submit(self._bring_up, by_name[name]): name for name in order.get_ready()}
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    order.done(running.pop(future))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _bring_up(self, spec: ProcessSpec) -> None:
        for name in spec.after:
            self._processes[name].wait_ready()
        self.spawn(spec).wait_ready()

    def start_on_free_ports(self, count: int, make: Callable[[list[int]], ProcessSpec]) -> list[int]:
        """Start ``make(ports)`` and wait until it is ready; the ports it got. Tries others when one was taken meanwhile."""
        for attempt in range(PORT_ATTEMPTS):
            given = ports.free_ports(count)
            process = self.spawn(make(given))
            try:
                process.wait_ready()
            except ProcessFailed:
                if attempt == PORT_ATTEMPTS - 1 or not any(ports.taken(port) for port in given):
                    raise
            else:
                return given
        raise AssertionError("unreachable")

    def process(self, name: str) -> Process:
        """The process of that name. Raises `KeyError`."""
        return self._processes[name]

    def table(self) -> list[Row]:
        """One row per process, in the order they were started."""
        with self._lock:
            processes = list(self._processes.values())
        return [
            Row(each.spec.name, each.state, each.since, each.pid, each.restarts, each.exit_code, each.error) for each in processes
        ]

    def stop(self) -> None:
        """Stop all, last started first, those that nothing depends on side by side; returns when none is left."""
        self._stopped.set()
        with self._lock:
            left = list(self._processes.values())
        while left:
            needed = {name for process in left for name in process.spec.after}
            batch = [process for process in left if process.spec.name not in needed] or left
            threads = [threading.Thread(target=process.stop) for process in reversed(batch)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            left = [process for process in left if process not in batch]
        self._meter.join()

    def _measure(self) -> None:
        while not self._stopped.is_set():
            self.peak_memory_bytes = max(self.peak_memory_bytes, memory_bytes(os.getpid()))
            self._stopped.wait(MEMORY_EVERY_SECONDS)


def memory_bytes(root: int) -> int:
    """Memory of a process and everything below it: shared pages counted once (PSS), or resident size where PSS cannot be read."""
    total = 0
    for pid in [root, *descendants(root)]:
        try:
            process = psutil.Process(pid)
            try:
                total += int(process.memory_full_info().pss)
            except psutil.AccessDenied:
                total += int(process.memory_info().rss)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total

"""One supervised child process: started under its leash, watched by one thread, moved through the table `MOVES`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx

from embedded.leash import descendants, send
from trimtab.errors import TrimtabError

State = Literal["waiting", "starting", "ready", "exited", "failed", "stopping", "stopped"]
EventKind = Literal["started", "ready", "exited", "restarted", "failed", "stopped"]

MOVES: dict[State, tuple[State, ...]] = {
    "waiting": ("starting", "stopped"),
    "starting": ("ready", "exited", "failed", "stopping"),
    "ready": ("exited", "stopping"),
    "exited": ("waiting", "failed", "stopped"),  # waiting: it will be restarted after the backoff
    "failed": ("stopped",),
    "stopping": ("stopped",),
    "stopped": (),
}
ENDED: frozenset[State] = frozenset({"failed", "stopped"})

LEASH = Path(__file__).with_name("leash.py")
MARK = "TRIMTAB_PROCESS_MARK"
"""In the environment of every child and inherited below it: how strays are found when a leash itself was killed."""
CHECK_EVERY_SECONDS = 0.05
CHECK_TIMEOUT_SECONDS = 1.0
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MOST_SECONDS = 10.0


@dataclass(frozen=True)
class ProcessSpec:
    """What to run and how.

    `ready` is a URL that answers 200 or a function that returns True once the process serves; None: ready when started.
    Not ready within `ready_timeout` seconds, it is killed and has failed. `restart="on_failure"` starts it again, at most
    `restart_limit` times in all, after 0.5 s, 1 s, 2 s, ...; a process that ended with 0 is never started again.
    `stop_timeout`: seconds between SIGTERM and SIGKILL. `leftovers`: files whose paths begin so are removed when it has ended,
    however it did. `env` is the whole environment (None: this process's own).
    """

    name: str
    argv: list[str]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    ready: Callable[[], bool] | str | None = None
    ready_timeout: float = 180.0
    restart: Literal["never", "on_failure"] = "never"
    restart_limit: int = 3
    stop_timeout: float = 5.0
    after: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """Something that happened to a process: `detail` in words (exit code, seconds until ready)."""

    time: float
    process: str
    kind: EventKind
    detail: str = ""


class ProcessFailed(TrimtabError):
    """A process ended, or never got ready, while it was waited for. The text ends with the last lines of its log."""


@dataclass
class Process:
    """A child under a leash. `start` returns at once; `wait_ready` waits. All methods may be called from any thread."""

    spec: ProcessSpec
    log: Path
    on_event: Callable[[Event], None]
    state: State = "waiting"
    since: float = field(default_factory=time.time)
    restarts: int = 0
    exit_code: int | None = None
    error: str | None = None
    pid: int | None = None
    _leash: subprocess.Popen[bytes] | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stop_asked: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it; what happens next is told through events."""
        self._thread = threading.Thread(target=self._run, name=f"watch-{self.spec.name}", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Block until ready. Raises `ProcessFailed` with the last lines of the log if it ends or is stopped before that."""
        with self._changed:
            waited = self._changed.wait_for(lambda: self.state == "ready" or self.state in ENDED or self._done(), timeout)
            served = self.state == "ready" or (self._done() and self.spec.ready is None)
            ended = f"{self.spec.name} ended before it was ready" if self._done() else f"{self.spec.name} was stopped"
        if not waited:
            raise ProcessFailed(f"{self.spec.name} is not ready after {timeout:g} s.{self.last_lines()}")
        if not served:
            raise ProcessFailed(f"{self.error or ended}.{self.last_lines()}")

    def wait_ended(self, timeout: float | None = None) -> int | None:
        """Block until it has ended for good; its exit code, or None if it still runs after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.state in ENDED or self._done(), timeout)
            return self.exit_code if self.state in ENDED or self._done() else None

    def ask_to_stop(self, timeout: float | None = None) -> None:
        """SIGTERM, then SIGKILL to the whole tree after `timeout` (default: `stop_timeout`); returns at once."""
        self._stop_asked.set()
        with self._changed:
            if self.state in ("starting", "ready"):
                self._move("stopping")
            self._tell_leash(f"stop {self.spec.stop_timeout if timeout is None else timeout}\n")

    def stop(self, timeout: float | None = None) -> None:
        """As `ask_to_stop`, but returns when nothing of it is left."""
        self.ask_to_stop(timeout)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def tree(self) -> list[int]:
        """Process ids of the child and everything below it (the leash left out)."""
        leash = self._leash
        return descendants(leash.pid) if leash is not None and leash.returncode is None else []

    def signal_tree(self, number: signal.Signals) -> None:
        """Send a signal to the child and everything below it, for example SIGSTOP to make it hang."""
        send(self.tree(), number)

    def last_lines(self, count: int = 12) -> str:
        """The end of the log as an indented block that starts with a line break, or an empty text."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 20_000))
                lines = file.read().decode(errors="replace").splitlines()[-count:]
        except OSError:
            return ""
        return "".join(f"\n    {line}" for line in lines)

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            code = self._run_once()
            self._sweep_strays()
            with self._changed:
                self.exit_code = code
                self.pid = None
                if self._stop_asked.is_set():
                    self._move("stopped", "stopped")
                    return
                if self.state == "failed":
                    return
                self._move("exited", "exited", _exit_words(code))
                again = code != 0 and self.spec.restart == "on_failure" and self.restarts < self.spec.restart_limit
                if not again:
                    if code != 0:
                        self.error = f"{self.spec.name} ended: {_exit_words(code)}"
                        self._move("failed", "failed", self.error)
                    return
            backoff = min(BACKOFF_MOST_SECONDS, BACKOFF_FIRST_SECONDS * 2**self.restarts)
            stopped = self._stop_asked.wait(max(0.0, backoff - (time.monotonic() - began)))
            with self._changed:
                if stopped:
                    self._move("stopped", "stopped")
                    return
                self.restarts += 1
                self._move("waiting", "restarted", f"restart {self.restarts} of at most {self.spec.restart_limit}")

    def _run_once(self) -> int:
        """Start the child, watch it get ready, and return its exit code once it has ended."""
        began = time.monotonic()
        with self._changed:
            if self._stop_asked.is_set():
                return 0
            with self.log.open("ab") as log:
                leash = self._leash = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(LEASH)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={"PATH": os.environ.get("PATH", os.defpath)},
                    start_new_session=True,
                )
            environment = dict(os.environ if self.spec.env is None else self.spec.env) | {MARK: self._mark()}
            order = {
                "argv": self.spec.argv,
                "env": environment,
                "cwd": str(self.spec.cwd or Path.cwd()),
                "log": str(self.log),
                "leftovers": self.spec.leftovers,
            }
            self._tell_leash(json.dumps(order) + "\n")
            assert leash.stdout is not None
            answer = leash.stdout.readline().split()
            self.pid = int(answer[1]) if answer else None
            leash.stdout.close()
            self._move("starting", "started", f"pid {self.pid}")
        deadline = began + self.spec.ready_timeout
        while leash.poll() is None and not self._stop_asked.is_set():
            if self._check():
                with self._changed:
                    if self.state == "starting" and leash.poll() is None:
                        self._move("ready", "ready", f"after {time.monotonic() - began:.1f} s")
                break
            if time.monotonic() > deadline:
                with self._changed:
                    self.error = f"{self.spec.name} was not ready within {self.spec.ready_timeout:g} s"
                    self._move("failed", "failed", self.error)
                self._tell_leash("stop 0.2\n")
                break
            time.sleep(CHECK_EVERY_SECONDS)
        code = leash.wait()
        assert leash.stdin is not None
        leash.stdin.close()
        return code if code >= 0 else 128 - code

    def _check(self) -> bool:
        ready = self.spec.ready
        if ready is None:
            return True
        try:
            if callable(ready):
                return ready()
            return httpx.get(ready, timeout=CHECK_TIMEOUT_SECONDS, trust_env=False).status_code == 200
        except (httpx.HTTPError, OSError):
            return False

    def _done(self) -> bool:
        return self.state == "exited" and self.exit_code == 0

    def _tell_leash(self, text: str) -> None:
        if self._leash is None or self._leash.stdin is None or self._leash.stdin.closed:
            return
        try:
            self._leash.stdin.write(text.encode())
            self._leash.stdin.flush()
        except BrokenPipeError:
            return  # it ended meanwhile; its exit code says how

    def _mark(self) -> str:
        return f"{os.getpid()}-{id(self):x}-{self.spec.name}"

    def _sweep_strays(self) -> None:
        """Kill what a killed leash could not: processes that still carry this child's mark in their environment."""
        if self._leash is None or self._leash.returncode is None or self._leash.returncode >= 0:
            return
        wanted = f"{MARK}={self._mark()}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    send([int(entry.name)], signal.SIGKILL)
            except OSError:
                continue

    def _move(self, to: State, kind: EventKind | None = None, detail: str = "") -> None:
        """Change the state along `MOVES` and tell it; the caller holds `_changed`."""
        with self._changed:
            if to not in MOVES[self.state]:
                raise AssertionError(f"{self.spec.name}: no move from {self.state} to {to}")
            self.state = to
            self.since = time.time()
            self._changed.notify_all()
        if kind is not None:
            self.on_event(Event(self.since, self.spec.name, kind, detail))


def _exit_words(code: int) -> str:
    if code <= 128:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(code - 128).name}"
    except ValueError:
        return f"exit code {code}"

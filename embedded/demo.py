"""Plays a scenario on the whole stack: start, warm up and train, play, stop, judge, report."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol

from rich.console import Console

from embedded import report, scenario, traffic_plan
from embedded.cluster import ClusterStack
from embedded.figures import figures
from embedded.judge import judge
from embedded.live import verdict_table
from embedded.player import Actors, Player
from embedded.process import Process
from embedded.recorder import Recorder
from embedded.recording import Recording, Request
from embedded.results import write_events, write_summary
from embedded.scenario import Scenario
from embedded.stack import Stack
from embedded.supervisor import Event
from embedded.view import View
from trimtab.bus import Bus
from trimtab.errors import Missing, TrimtabError
from trimtab.kube import connect
from trimtab.messages import FleetSpec

INTERRUPTED = 130
_TRAFFIC_STARTS_IN = 3.0
"""Seconds that the traffic generator gets to load before its first request is due."""
_TRAIN_AFTER = 0.75
"""The share of the warm-up on which the detectors are trained; training itself then takes about the rest of it."""
_LAST_ANSWERS_SECONDS = 5.0


def console() -> Console:
    """The terminal; what is no terminal is taken to be wide enough for the tables."""
    return Console() if sys.stdout.isatty() else Console(width=130)


def list_scenarios() -> int:
    """Prints the scenarios that ship with Trimtab; returns the exit code."""
    lines = console()
    for name, path in scenario.shipped().items():
        length = scenario.read(path).duration
        lines.print(f"[bold]{name:<16}[/] {length:>4g} s  {scenario.about(path)}", highlight=False, soft_wrap=True)
    return 0


class Playable(Actors, Protocol):
    """What a scenario is played on: `embedded.stack.Stack`, or `embedded.cluster.ClusterStack`."""

    opening: str
    """What `start` does, for people."""
    folder: Path
    fleet: FleetSpec

    @property
    def peak_memory_bytes(self) -> int:
        """Most memory that it took; 0 when that is not known."""

    def start(self) -> None:
        """Returns when all is ready for traffic."""

    def bus(self) -> Bus:
        """A new connection to its Kafka."""

    def start_traffic(self, plan: Path, start_at: float | None = None) -> Process:
        """Sends a plan's traffic; the process ends with the plan."""

    def start_training(self, ticks: int = ...) -> Process | None:
        """Trains the learned detectors; None where that is not the scenario's to do."""

    def stop(self) -> None:
        """Nothing of it is left; calling it again changes nothing."""


def run(
    name_or_file: str,
    *,
    seed: int | None = None,
    out: Path | None = None,
    plain: bool = False,
    cluster: str | None = None,
) -> int:
    """Plays a scenario and writes the results; returns the exit code: 0 all held, 1 not, 130 interrupted.

    It is played on a new stack on this machine, or on a Kubernetes cluster with a ModelFleet in the namespace `cluster`.
    Raises `SettingsError` for a scenario that is not right, and `TrimtabError` with the log's last lines when the stack does
    not start.
    """
    played = scenario.read(scenario.find(name_or_file))
    folder = _results_folder(out, played.name)
    return _Demo(played, played.seed if seed is None else seed, folder, plain, cluster).run()


def _results_folder(out: Path | None, name: str) -> Path:
    if out is not None:
        if (out / "stack").exists():
            raise Missing(f"{out} holds a run, which would be mixed up with this one: give --out another folder, or delete it")
        return _made(out, exist_ok=True)
    stem = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for n in range(1, 1000):
        with suppress(FileExistsError):  # of a demo that was started in the same second
            return _made(stem if n == 1 else Path(f"{stem}-{n}"), exist_ok=False)
    raise Missing(f"{stem} and many like it are taken: say where the results go with --out")


def _made(folder: Path, exist_ok: bool) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if not exist_ok and isinstance(error, FileExistsError):
            raise
        raise Missing(f"the folder for the results, {folder}, cannot be made: {error.strerror}") from error
    return folder


class _Demo:
    def __init__(self, played: Scenario, seed: int, folder: Path, plain: bool, cluster: str | None) -> None:
        self._scenario, self._seed, self._folder = played, seed, folder
        self._console = console()
        self._view = View(self._console, played, seed, as_lines=plain)
        self._stack: Playable = self._make(cluster, seed)
        self._recorder: Recorder | None = None
        self._training: Process | None = None
        self._trouble: list[str] = []

    def _make(self, cluster: str | None, seed: int) -> Playable:
        folder, spec = self._folder / "stack", self._scenario.spec()
        if cluster is None:
            return Stack(folder, spec, seed, self._on_event)
        return ClusterStack(folder, spec, connect(), cluster, self._on_event)

    def run(self) -> int:
        interrupted = False
        with _terminated_as_interrupted():
            self._view.start()
            try:
                try:
                    recorder = self._start()
                    self._play(recorder)
                except KeyboardInterrupt:
                    interrupted = True
                    self._trouble.append("the run was interrupted")
                except TrimtabError as error:
                    if self._recorder is None:
                        raise TrimtabError(f"{error}\nThe logs are in {self._stack.folder / 'logs'}.") from error
                    self._trouble.append(str(error))
                with _uninterrupted():
                    return self._finish(interrupted)
            finally:
                with _uninterrupted():
                    self._stack.stop()
                    self._view.stop()

    def _on_event(self, event: Event) -> None:
        words = f"{event.process} {event.kind}" + (f": {event.detail}" if event.detail else "")
        if self._recorder is None:
            self._view.line(words)
        else:
            self._recorder.note("process", words, process=event.process, event=event.kind)

    def _start(self) -> Recorder:
        self._view.stage(self._stack.opening)
        began = time.time()  # a cluster's topics hold what earlier fleets of this name went through
        self._stack.start()
        recorder = Recorder(self._stack.bus(), self._stack.fleet, self._folder / "records.jsonl", since=began)
        recorder.start()
        self._recorder = recorder
        self._view.attach(recorder)
        return recorder

    def _play(self, recorder: Recorder) -> None:
        plan = traffic_plan.write(self._folder / "traffic-plan.json", self._scenario, self._seed)
        begin = time.time() + _TRAFFIC_STARTS_IN
        zero = begin + self._scenario.warmup
        recorder.clock_starts(zero)
        self._view.stage("warming up: traffic flows, the detectors will learn what is normal", zero)
        traffic = self._stack.start_traffic(plan, begin)
        learn_from = self._scenario.warmup * _TRAIN_AFTER
        _sleep_until(begin + learn_from)
        self._view.stage("training the detectors on the warm-up's telemetry")
        self._training = self._stack.start_training(ticks=int(learn_from))
        _sleep_until(zero)
        self._view.stage("playing")
        player = Player(self._scenario, self._seed, self._stack, recorder)
        try:
            player.play(zero, threading.Event())
        finally:
            self._trouble += player.trouble
        self._view.stage("over: waiting for the last answers")
        traffic.wait_ended(_LAST_ANSWERS_SECONDS)

    def _finish(self, interrupted: bool) -> int:
        self._view.stage("stopping")
        if self._recorder is None:
            self._view.stop()
            self._console.print("interrupted before the stack was up")
            return INTERRUPTED
        recording = self._recorder.stop()
        self._check_parts()
        self._stack.stop()
        self._view.stop()
        ok = self._report(recording, self._requests(), interrupted)
        return INTERRUPTED if interrupted else 0 if ok else 1

    def _check_parts(self) -> None:
        """Adds to the trouble what would make the run say less than it seems to."""
        if self._recorder is not None and self._recorder.error is not None:
            self._trouble.append(self._recorder.error)
        training = self._training
        if training is not None and training.wait_ended(0) is None:
            self._trouble.append("training the detectors was not over before the end: the learned detectors said nothing")
        elif training is not None and training.exit_code != 0:
            self._trouble.append(f"training the detectors failed{training.last_lines()}")

    def _requests(self) -> list[Request] | None:
        try:
            return traffic_plan.read_requests(self._stack.folder / "requests.jsonl")
        except Missing as error:
            self._trouble.append(str(error))
            return None

    def _report(self, recording: Recording, requests: list[Request] | None, interrupted: bool) -> bool:
        verdicts = [] if interrupted else judge(self._scenario, recording, requests)
        numbers = figures(self._scenario, recording, requests, self._stack.peak_memory_bytes or None)
        write_events(self._folder / "events.jsonl", recording.notes)
        page = self._folder / "report.html"
        report.write(page, self._scenario, self._seed, recording, requests, verdicts, numbers, self._trouble)
        ok = write_summary(self._folder / "summary.json", self._scenario.name, self._seed, verdicts, numbers, self._trouble)
        if verdicts:
            self._console.print(verdict_table(verdicts))
        for words in self._trouble:
            self._console.print(words, style="red", markup=False, highlight=False)
        known = (f"{name} {report.say(name, value)}" for name, value in numbers.items() if value is not None)
        self._console.print(", ".join(known), style="dim", highlight=False)
        self._console.print(f"report: {page}", highlight=False, soft_wrap=True)
        return ok


def _sleep_until(moment: float) -> None:
    while (left := moment - time.time()) > 0:
        time.sleep(min(left, 0.5))


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A polite request to end (SIGTERM) stops the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Stopping takes a few seconds, each bounded; another Ctrl-C does not leave it half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

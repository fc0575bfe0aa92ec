"""One run of traffic: the generator, its metrics page, its logs and its summary."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import msgspec

from serving_stack.traffic.generator import Generator
from serving_stack.traffic.histogram import HistogramLog
from serving_stack.traffic.metrics import TrafficMetrics
from serving_stack.traffic.plan import Plan
from serving_stack.traffic.questions import Question, banking77
from serving_stack.traffic.tally import Result, Tally
from serving_stack.traffic.target import Target
from trimtab.errors import Unavailable


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run writes: JSON lines per second, JSON lines per request, an HDR histogram log per second, and one JSON summary
    at the end."""

    log: Path | None = None
    requests: Path | None = None
    histograms: Path | None = None
    summary: Path | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How a run stands: seconds from time zero, the plan's end (infinite without one), the last second's line of the log, and the
    summary so far."""

    at: float
    end: float
    second: dict[str, object]
    total: dict[str, object]


class Run:
    """Takes results as they come and writes them out each second.

    A line of the per-second log: ``{"time", "at", "version", "ok", "wrong", "error", "p50", "p99"}`` for the requests that
    ended in that second; the line with version null is all of them and also has `sent` and `in_flight`. Times are unix seconds,
    `at` seconds from time zero, latencies seconds.
    """

    def __init__(
        self,
        plan: Plan,
        target: Target,
        questions: Sequence[Question],
        start_at: float,
        files: Files,
        show: Callable[[Progress], None] | None = None,
    ) -> None:
        self.metrics = TrafficMetrics()
        self._start_at = start_at
        self._total = Tally()
        self._second = Tally()
        self._warmup = 0
        self._sent_before = 0
        self._files = files
        self._generator = Generator(plan, target, questions, start_at, self._take)
        self._log: IO[bytes] | None = None
        self._requests: IO[bytes] | None = None
        self._histograms: HistogramLog | None = None
        self._second_began = time.time()
        self._plan = plan
        self._show = show

    async def run(self, stop: asyncio.Event) -> dict[str, object]:
        """Sends everything and returns the summary, which it also writes. Raises Unavailable when a file cannot be written."""
        with contextlib.ExitStack() as stack:
            self._log = _open(self._files.log, stack)
            self._requests = _open(self._files.requests, stack)
            if (histograms := _open(self._files.histograms, stack)) is not None:
                self._histograms = HistogramLog(histograms, self._second_began)
            ticking = asyncio.create_task(self._tick())
            try:
                await self._generator.run(stop)
            finally:
                ticking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await ticking
                self._write_second()
        summary = self.summary()
        if self._files.summary:
            self._files.summary.parent.mkdir(parents=True, exist_ok=True)
            self._files.summary.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n")
        return summary

    def summary(self) -> dict[str, object]:
        """Counts from time zero on; `sent` includes what was dropped or was still open at the end."""
        return {
            "start_at": self._start_at,
            "end": time.time(),
            "sent": self._generator.scheduled - self._warmup,
            "unfinished": self._generator.unfinished,
            "warmup_requests": self._warmup,
            "latest_send_seconds": round(self._generator.behind, 4),
            **self._total.summary(),
            **({"feedback": feedback.summary()} if (feedback := self._generator.feedback) else {}),
        }

    def _take(self, result: Result) -> None:
        self.metrics.count(result)
        self._second.add(result)
        if result.at < 0:
            self._warmup += 1
        else:
            self._total.add(result)
        if self._requests:
            self._requests.write(msgspec.json.encode(result) + b"\n")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0 - time.time() % 1.0)
            self._write_second()

    def _write_second(self) -> None:
        now = time.time()
        sent = self._generator.scheduled - self._sent_before
        self._sent_before = self._generator.scheduled
        self.metrics.scheduled.inc(sent)
        self.metrics.in_flight.set(self._generator.in_flight)
        whole, *versions = self._second.lines()
        if self._histograms:
            self._histograms.write(self._second.latencies(), self._second_began, now)
        self._second_began, self._second = now, Tally()
        when: dict[str, object] = {"time": round(now, 3), "at": round(now - self._start_at, 3)}
        lines = [
            {**when, **whole, "sent": sent, "in_flight": self._generator.in_flight},
            *({**when, **line} for line in versions),
        ]
        if self._log:
            self._log.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
            self._log.flush()
        if self._requests:
            self._requests.flush()
        if self._show:
            self._show(Progress(at=now - self._start_at, end=self._plan.end, second=lines[0], total=self._total.summary()))


def _open(path: Path | None, stack: contextlib.ExitStack) -> IO[bytes] | None:
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return stack.enter_context(path.open("wb"))
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {error.strerror}") from error


def send(
    plan: Plan,
    target: Target,
    *,
    files: Files,
    start_at: float | None = None,
    metrics_port: int | None = None,
    show: Callable[[Progress], None] | None = None,
) -> dict[str, object]:
    """Sends a plan's traffic until it ends, or SIGTERM or SIGINT arrives, and returns the summary.

    `show` is called each second. Raises Missing without the questions, SettingsError for a target or a trace that is none,
    Unavailable when the metrics port is taken or a file cannot be written.
    """
    target.check()
    for segment in plan.segments:
        segment.recording()  # a wrong file is refused now and not when its turn comes
    zero = time.time() + plan.warmup if start_at is None else start_at
    run = Run(plan, target, banking77(plan.seed), zero, files, show)
    if metrics_port is not None:
        run.metrics.serve(metrics_port)

    async def main() -> dict[str, object]:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await run.run(stop)

    return asyncio.run(main())

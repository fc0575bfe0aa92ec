"""`trimtab up`: the stack with default traffic until it is stopped."""

from __future__ import annotations

import signal
import tempfile
import threading
from pathlib import Path
from types import FrameType

import msgspec
from rich.console import Console
from rich.markup import escape

from embedded.process import Event
from embedded.stack import Stack
from serving_stack import export
from trimtab.messages import FleetSpec

TRAINING_WARMUP_SECONDS = 30.0
"""Traffic before training starts, so that the first minute's start-up effects are not learned as normal."""


class Stopped(BaseException):
    """SIGTERM or Ctrl-C: not an error, and nothing on the way may swallow it."""


def run(spec: FleetSpec, rate: float, seed: int, folder: Path | None, train: bool) -> None:
    """Start the stack, print its addresses, and keep it until Ctrl-C or SIGTERM. Raises what `Stack.start` raises."""
    console = Console()
    over = threading.Event()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        if over.is_set():
            return  # already on the way down; a second Ctrl-C must not leave half of it
        over.set()
        raise Stopped

    for number in previous:
        signal.signal(number, stop)
    where = folder or Path(tempfile.mkdtemp(prefix="trimtab-up-"))
    try:
        stack = Stack(where, spec, seed, on_event=lambda event: tell(console, event))
        try:
            stack.start()
            _serve(stack, console, rate, seed, train)
            while True:
                over.wait(3600)
        except Stopped:
            console.print("stopping ...")
        finally:
            over.set()
            stack.stop()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    console.print(f"stopped; logs and topics are in {where} (peak memory {stack.peak_memory_bytes / 1e9:.1f} GB)")


def _serve(stack: Stack, console: Console, rate: float, seed: int, train: bool) -> None:
    plan = {"seed": seed, "segments": [{"at": 0, "rate": rate, "trace": "azure-conv"}]}
    path = stack.folder / "traffic.json"
    path.write_bytes(msgspec.json.encode(plan))
    for version in export.shipped():
        stack.publish(version)  # so that `trimtab release` finds them
    stack.start_traffic(path)
    for name, address in sorted(stack.addresses.items()):
        console.print(f"  [bold]{name:14}[/] {escape(address)}")
    console.print("`trimtab status` shows replicas, weights and decisions. Ctrl-C stops everything.")
    if train:
        timer = threading.Timer(TRAINING_WARMUP_SECONDS, stack.start_training)
        timer.daemon = True
        timer.start()


def tell(console: Console, event: Event) -> None:
    """One line for an event of the stack."""
    style = {"failed": "red", "exited": "yellow", "restarted": "yellow", "ready": "green"}.get(event.kind, "")
    detail = escape(event.detail.splitlines()[0]) if event.detail else ""
    console.print(f"{event.process:16} [{style or 'default'}]{event.kind:9}[/] {detail}", highlight=False)

"""Faults that a version or a replica is told to have, so that detection can be shown and tested. Off unless a file asks for it.

Two files may ask: `fault.json` in the version's folder (all replicas of that version) and the file that the environment
variable TRIMTAB_REPLICA_FAULT_FILE names (this replica only; looked at while serving, so a fault can come and go).
Their content is one JSON object, for example {"kind": "slow", "seconds": 0.2}; `serving_stack.fault` describes and checks it.
Runs inside Triton: standard library only, and nothing of trimtab.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

LOOK_EVERY_SECONDS = 0.2
CONFIDENT = 0.97
"""The confidence that a wrong answer is given with."""


class FaultFile:
    """The fault that a file asks for now, or None; the file is read again when its time or size changes."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._looked = float("-inf")
        self._fault: dict[str, Any] | None = None

    def current(self, now: float) -> dict[str, Any] | None:
        """`now` is a monotonic time in seconds. A file that is not readable as a fault counts as none, with a word in the log."""
        if self._path is None or now - self._looked < LOOK_EVERY_SECONDS:
            return self._fault
        self._looked = now
        try:
            about = self._path.stat()
            stamp = (about.st_mtime_ns, about.st_size)
            if stamp != self._stamp:
                self._stamp = stamp
                found = json.loads(self._path.read_text(encoding="utf-8"))
                self._fault = found if isinstance(found, dict) else None
        except FileNotFoundError:
            self._stamp = self._fault = None
        except (OSError, ValueError) as error:
            print(f"trimtab: {self._path} is not a readable fault file, ignored: {error}", file=sys.stderr, flush=True)
            self._fault = None
        return self._fault


class Faults:
    """What goes wrong in this replica, by the version's fault and the replica's own."""

    def __init__(self, version_folder: Path, replica_file: str | None, seed: int | None = None) -> None:
        self._files = [FaultFile(version_folder / "fault.json"), FaultFile(Path(replica_file) if replica_file else None)]
        self._chance = random.Random(seed)
        self._leaked: list[bytearray] = []
        self._leaked_bytes = 0
        self._seen_while_crashing = 0
        self._now: list[dict[str, Any]] = []

    def before_batch(self, requests: int) -> None:
        """Slowness, leaks and crashes: called once per batch, before anything is computed."""
        clock = time.monotonic()
        self._now = [fault for file in self._files if (fault := file.current(clock)) is not None]
        for fault in self._now:
            kind = fault.get("kind")
            if kind == "slow":
                time.sleep(float(fault["seconds"]))
            elif kind == "leaking":
                self._leak(int(fault["bytes_per_request"]) * requests, int(fault.get("limit_bytes", 1_000_000_000)))
            elif kind == "crashing":
                self._seen_while_crashing += requests
                if self._seen_while_crashing > int(fault.get("after_requests", 5)):
                    _die()

    def fails(self) -> bool:
        """Whether the next batch is to be answered with an error."""
        return any(fault.get("kind") == "failing" and self._chance.random() < float(fault["share"]) for fault in self._now)

    def before_run(self) -> None:
        """A network that cannot run any more, as one whose device is lost: called before each run. Raises `RuntimeError`."""
        if any(fault.get("kind") == "broken" for fault in self._now):
            raise RuntimeError("broken as the fault file asks")

    def wrong(self, best: int, classes: int) -> int | None:
        """A wrong class to answer with instead of `best`, or None to answer honestly."""
        for fault in self._now:
            if fault.get("kind") == "wrong" and self._chance.random() < float(fault["share"]):
                return (best + self._chance.randrange(1, classes)) % classes
        return None

    def _leak(self, size: int, limit: int) -> None:
        size = min(size, limit - self._leaked_bytes)
        if size > 0:
            self._leaked.append(bytearray(os.urandom(4096) * (size // 4096 + 1)))  # written, so that it is resident
            self._leaked_bytes += size


def _die() -> None:
    """Take the whole replica down, as a crash does: Triton itself (the parent of this process) and this process."""
    print("trimtab: crashing as the fault file asks", file=sys.stderr, flush=True)
    os.kill(os.getppid(), signal.SIGKILL)
    os._exit(1)

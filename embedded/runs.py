"""Which stacks run on this machine: one small file per stack, so that `trimtab status` finds them."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import psutil
from filelock import BaseFileLock, FileLock, Timeout

from trimtab.cache import cache_folder
from trimtab.errors import Missing


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A stack: the process that supervises it, its folder, and its addresses by name (`gateway`, `host`, `kafka`, ...)."""

    pid: int
    pid_started: float
    started: float
    folder: str
    fleet: str
    addresses: dict[str, str]


def register(folder: Path, fleet: str, started: float, addresses: dict[str, str]) -> Path:
    """Say that this process runs a stack; the file that `forget` removes."""
    run = Run(
        pid=os.getpid(),
        pid_started=psutil.Process().create_time(),
        started=started,
        folder=str(folder),
        fleet=fleet,
        addresses=addresses,
    )
    runs = _folder()
    runs.mkdir(parents=True, exist_ok=True)
    path = runs / f"{os.getpid()}-{fleet}-{int(started * 1000)}.json"
    fresh = path.with_suffix(".tmp")
    fresh.write_bytes(msgspec.json.encode(run))
    fresh.replace(path)
    return path


def forget(path: Path) -> None:
    """The stack of this file runs no more."""
    path.unlink(missing_ok=True)


def own(folder: Path) -> BaseFileLock:
    """Take the folder of a stack for as long as this process lives or until `release` of what is returned.

    Raises `Missing` when another stack has it: two in one folder would write into each other's topics and logs.
    """
    lock = FileLock(folder / ".in-use", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise Missing(
            f"{folder} is in use by another stack that runs now: give another folder, or stop that one first"
        ) from error
    return lock


def running() -> list[Run]:
    """All stacks whose supervising process lives, oldest first; files of others are removed."""
    found = []
    for path in sorted(_folder().glob("*.json")):
        try:
            run = msgspec.json.decode(path.read_bytes(), type=Run)
            alive = psutil.Process(run.pid).create_time() == run.pid_started
        except (OSError, msgspec.DecodeError, psutil.NoSuchProcess):
            alive = False
        if alive:
            found.append(run)
        else:
            path.unlink(missing_ok=True)
    return sorted(found, key=lambda run: run.started)


def _folder() -> Path:
    return cache_folder() / "runs"

"""What the autoscaler knows, in one small file: after `kill -9` it goes on without repeating or forgetting an act."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from autoscaler.memory import PolicyMemory
from trimtab.errors import SettingsError, Unavailable
from trimtab.messages import Decision, FleetState

STATE_SCHEMA = 1


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """Memory, how far each partition is processed, and what was decided but may not have been published yet."""

    schema: int = STATE_SCHEMA
    fleet: str
    memory: PolicyMemory = PolicyMemory()
    consumed: dict[str, int] = {}
    unpublished: list[Decision] = []
    observed: FleetState | None = None
    """The observation on which `unpublished` was decided; published with it."""
    failed: list[Decision] = []
    """Acts whose plan was not accepted yet."""


class Store(Protocol):
    """Where an autoscaler keeps what it knows."""

    def load(self) -> Saved:
        """What was saved last, or an empty state. Raises `SettingsError` when it is not one of this fleet."""

    def save(self, saved: Saved) -> None:
        """Keeps it: after a crash, everything that was decided (`unpublished`) is found again. Raises `Unavailable`."""


class FileStore:
    """One file; without a path nothing is kept."""

    def __init__(self, path: Path | None, fleet: str) -> None:
        self._path, self._fleet = path, fleet

    def load(self) -> Saved:
        """See `Store`."""
        return load(self._path, self._fleet)

    def save(self, saved: Saved) -> None:
        """See `Store`."""
        save(self._path, saved)


def load(path: Path | None, fleet: str) -> Saved:
    """The saved state, or an empty one where there is none. Raises `SettingsError` for a file that is not one of this fleet."""
    if path is None or not path.exists():
        return Saved(fleet=fleet)
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=Saved)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}:1: this is no state of an autoscaler ({error}); move it away to start anew") from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    if saved.schema != STATE_SCHEMA or saved.fleet != fleet:
        raise SettingsError(
            f"{path}:1: holds schema {saved.schema} of fleet '{saved.fleet}', wanted is schema {STATE_SCHEMA} of fleet '{fleet}'"
        )
    return saved


def save(path: Path | None, saved: Saved) -> None:
    """Replaces the file as a whole: a reader finds the old state or the new one. Raises `Unavailable`."""
    if path is None:
        return
    partial = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(msgspec.json.encode(saved))
        partial.replace(path)
    except OSError as error:
        raise Unavailable(f"{path}: the autoscaler's state cannot be written: {error.strerror}") from error

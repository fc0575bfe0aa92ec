"""The Prometheus `file_sd` file that says what is scraped, and blackouts: targets that seem never to answer for a while."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from trimtab.messages import PoolRole, Role


@dataclass(frozen=True)
class Target:
    """One thing to scrape: `address` is host:port, `target` its name on the topics."""

    address: str
    target: str
    role: Role
    fleet: str
    pool: PoolRole | None = None
    version: int | None = None
    path: str = "/metrics"

    def entry(self, address: str) -> dict[str, object]:
        """Its `file_sd` entry, with another address while it is blacked out."""
        labels = {"fleet": self.fleet, "role": self.role, "target": self.target, "__metrics_path__": self.path}
        if self.pool is not None:
            labels["pool"] = self.pool
        if self.version is not None:
            labels["version"] = str(self.version)
        return {"targets": [address], "labels": labels}


def write_atomically(path: Path, content: str) -> None:
    """Replace the file in one step, so that no reader sees half of it."""
    fresh = path.with_name(f".{path.name}.{threading.get_ident()}")
    fresh.write_text(content)
    fresh.replace(path)


class TargetsFile:
    """Keeps the file equal to all groups of targets; writes only what changed. Safe to call from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._groups: dict[str, tuple[Target, ...]] = {}
        self._blackouts: dict[int, Callable[[Target], bool]] = {}
        self._next = 0
        self._written: str | None = None
        self._lock = threading.Lock()
        self._hole = Blackhole()
        self._write()

    def set(self, group: str, targets: Iterable[Target]) -> None:
        """Replace all targets of one group, for example ``replicas``."""
        with self._lock:
            self._groups[group] = tuple(targets)
            self._write()

    def all(self) -> list[Target]:
        """Every target, blacked out or not."""
        with self._lock:
            return [target for group in self._groups.values() for target in group]

    def black_out(self, which: Callable[[Target], bool]) -> int:
        """Send the scrapes of these targets, also of later ones, to a listener that never answers; a handle for `lift`."""
        with self._lock:
            self._next += 1
            self._blackouts[self._next] = which
            self._write()
            return self._next

    def lift(self, handle: int) -> None:
        """End a blackout; lifting it again changes nothing."""
        with self._lock:
            self._blackouts.pop(handle, None)
            self._write()

    def close(self) -> None:
        """Lift every blackout and close the listener that never answers."""
        with self._lock:
            self._blackouts.clear()
            self._write()
        self._hole.close()

    def _write(self) -> None:
        entries = []
        for target in (target for group in self._groups.values() for target in group):
            dark = any(which(target) for which in self._blackouts.values())
            entries.append(target.entry(self._hole.address if dark else target.address))
        content = json.dumps(entries, indent=1)
        if content != self._written:
            write_atomically(self.path, content)
            self._written = content


class Blackhole:
    """A loopback listener that accepts connections and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, name="blackhole", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            self._accepted = [*self._accepted[-63:], connection]  # older ones close: their clients gave up long ago

    def close(self) -> None:
        """Stop listening and drop the connections."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for connection in self._accepted:
            connection.close()

"""A file that may change at any time: read again when it does, and the last good content kept when it is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from trimtab.errors import SettingsError

log = logging.getLogger(__name__)

Content = TypeVar("Content")


class Watched(Generic[Content]):
    """The content of `path` as `read` gives it. `problem` says in words why the file as it is now is not used, else None."""

    def __init__(self, path: Path, read: Callable[[Path], Content], before: Content) -> None:
        """Raises `SettingsError` when the file is there and wrong; while it is not there yet, the content is `before`."""
        self.content = before
        self.problem: str | None = None
        self._path, self._read = path, read
        self._seen = self._stamp()
        if self._seen is None:
            self._complain(f"{path} is not there yet")
        else:
            self.content = read(path)

    def refresh(self) -> bool:
        """Looks at the file; true when the content is another than before. Costs one stat() while nothing changes."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            fresh = self._read(self._path)
        except SettingsError as error:
            self._complain(str(error))
            return False
        self.problem = None
        changed = fresh != self.content
        self.content = fresh
        return changed

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_size, status.st_ino)

    def _complain(self, problem: str) -> None:
        self.problem = problem
        log.warning("going on with what was known before: %s", problem)

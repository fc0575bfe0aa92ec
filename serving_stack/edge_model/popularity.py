"""Which adapters were popular, kept beside the replicas: a new one does not begin with an empty cache. Standard library only."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

MOST = 1000


class Popularity:
    """A JSON list of adapters' names, the most popular first. All replicas of a machine write the same file."""

    def __init__(self, file: Path | None) -> None:
        self._file, self._complained = file, False

    def read(self) -> list[str]:
        """The names; none when there is no file, or none that can be read: then a cache is only slower to fill."""
        try:
            names = json.loads(self._file.read_text(encoding="utf-8")) if self._file else []
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            self._complain(error)
            return []
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    def write(self, names: list[str]) -> None:
        """Whole or not at all; says once that it cannot be written."""
        if self._file is None or not names:
            return
        half = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            half.write_text(json.dumps(names[:MOST]), encoding="utf-8")
            half.replace(self._file)
        except OSError as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            print(f"trimtab: popularity file {self._file}: {error}", file=sys.stderr, flush=True)
            self._complained = True

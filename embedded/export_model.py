"""Exports a shipped adapter in a process of its own: `python -m embedded.export_model ADAPTER CACHE RESULT`.

It needs torch and half a minute; the supervising process stays small and can stop it at any time. The file RESULT gets the
folder of the exported model.
"""

from __future__ import annotations

import sys
from pathlib import Path

from serving_stack import export
from trimtab.errors import TrimtabError


def main(adapter: str, cache: str, result: str) -> int:
    """Export unless it is exported already; 1 with the reason on standard error when that cannot be."""
    try:
        folder = export.ensure_exported(int(adapter), Path(cache), lambda words: print(words, flush=True))
    except TrimtabError as error:
        print(error, file=sys.stderr)
        return 1
    Path(result).write_text(str(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

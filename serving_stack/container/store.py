"""Makes the store that the serving image carries: `python -m serving_stack.container.store FOLDER`. Needs the extra `train`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from serving_stack.export import shipped
from serving_stack.models_add import add_shipped
from serving_stack.repository import verify

MODEL = "intent"


def main(store: Path) -> None:
    """Export every shipped adapter and publish it as the version of its number."""
    with tempfile.TemporaryDirectory() as cache:
        for number in shipped():
            add_shipped(store, MODEL, number, number, cache=Path(cache), tell=lambda words: print(words, flush=True))
            verify(store, MODEL, number)
            print(f"{MODEL} version {number} is in {store}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

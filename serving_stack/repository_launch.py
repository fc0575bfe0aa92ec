"""The last check before a version is served: `python -m serving_stack.repository_launch STORE MODEL VERSION -- PROGRAM ...`.

Holds the version as in use, checks signature, files and shape, then becomes PROGRAM (Triton). A version that is not what it
should be is refused: one line on the error output says why, and the process ends with 1 before it listens on anything.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from serving_stack.repository import verify
from serving_stack.repository_manifest import read_manifest
from serving_stack.repository_shapes import check_contents
from serving_stack.repository_signing import trust
from serving_stack.repository_use import hold
from trimtab.errors import TrimtabError


def command(
    store: Path, model: str, version: int, program: list[str], *, trusted_keys: Path | None, require_signature: bool
) -> list[str]:
    """What to run instead of `program`, so that the version is checked first. The process stays the same one."""
    argv = [sys.executable, "-P", "-m", "serving_stack.repository_launch", str(store.absolute()), model, str(version)]
    if trusted_keys is not None:
        argv += ["--trusted-keys", str(trusted_keys.absolute())]
    if require_signature:
        argv.append("--require-signature")
    return [*argv, "--", *program]


def admit(store: Path, model: str, version: int, trusted_keys: Path | None, require_signature: bool) -> int:
    """Hold and check a version; the descriptor that holds it. Raises `TrimtabError` in words when it must not be served."""
    believed = trust(trusted_keys, require_signature)
    folder = store / model / str(version)
    held = hold(folder)
    verify(store, model, version, believed)
    check_contents(folder, sorted(read_manifest(folder).files))
    return held


def main() -> None:
    """Check, then become the program."""
    parser = argparse.ArgumentParser(prog="repository_launch")
    parser.add_argument("store", type=Path)
    parser.add_argument("model")
    parser.add_argument("version", type=int)
    parser.add_argument("--trusted-keys", type=Path)
    parser.add_argument("--require-signature", action="store_true")
    parser.add_argument("program", nargs="+")
    args = parser.parse_args()
    try:
        admit(args.store, args.model, args.version, args.trusted_keys, args.require_signature)
    except (TrimtabError, OSError) as error:
        print(f"trimtab: version {args.version} of {args.model} is refused: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    os.execv(args.program[0], args.program)  # noqa: S606


if __name__ == "__main__":
    main()

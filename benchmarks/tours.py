"""Played scenarios as a table: plays one for a seed as a child process, or reads what finished runs left behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from embedded.judge import Verdict
from embedded.process import Process, ProcessSpec
from trimtab.errors import SettingsError, TrimtabError

SUMMARY = "summary.json"
_STOP_SECONDS = 60.0
_INTERRUPTED = 130


class Summary(msgspec.Struct, frozen=True):
    """What `trimtab demo` writes at the end of a run."""

    ok: bool
    scenario: str
    seed: int
    expectations: list[Verdict]
    figures: dict[str, float | None]
    trouble: list[str]


def read(folder: Path) -> Summary:
    """The summary of a finished run; raises `SettingsError` when the folder holds none."""
    try:
        return msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)
    except OSError as error:
        raise SettingsError(f"there is no finished run in {folder}: it has no {SUMMARY}") from error
    except msgspec.DecodeError as error:
        raise SettingsError(f"{folder / SUMMARY} is not the summary of a run: {error}") from error


def folders(given: Iterable[Path]) -> list[Path]:
    """The run folders: each given one, or all finished runs right below it."""
    found: list[Path] = []
    for folder in given:
        below = sorted(path.parent for path in folder.glob(f"*/{SUMMARY}"))
        found += [folder] if (folder / SUMMARY).exists() or not below else below
    return found


def newest(scenario: str, under: Path) -> Path | None:
    """The folder of the run of this scenario below `under` that finished last."""
    files = [*under.glob(f"*/{SUMMARY}"), *under.glob(f"*/*/{SUMMARY}")]
    for file in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            if read(file.parent).scenario == scenario:
                return file.parent
        except SettingsError:
            continue
    return None


def play(scenario: str, seed: int, folder: Path) -> Summary | None:
    """Plays a scenario to its end on the whole stack, its output in `demo.log`; None when it came to no summary.

    It runs under a leash: nothing of it outlives this process. Raises `KeyboardInterrupt` when it was interrupted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "trimtab", "demo", "--scenario", scenario, "--seed", str(seed), "--out", str(folder), "--plain"]
    spec = ProcessSpec(name=f"demo-seed-{seed}", argv=argv, stop_timeout=_STOP_SECONDS)
    child = Process(spec, folder / "demo.log", on_event=lambda event: None)
    child.start()
    try:
        code = child.wait_ended()
    finally:
        child.stop()
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if not (folder / SUMMARY).exists():
        return None
    return read(folder)


def new_folder(name: str) -> Path:
    """A folder under `runs/` that does not exist yet."""
    folder = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if folder.exists():
        raise TrimtabError(f"{folder} exists already: another benchmark began in the same second; start this one again")
    return folder

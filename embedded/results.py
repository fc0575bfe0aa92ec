"""Writes what a run leaves behind: `summary.json` and `events.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from embedded.judge import Verdict
from embedded.recording import Note


def write_summary(
    path: Path,
    scenario: str,
    seed: int,
    verdicts: Sequence[Verdict],
    figures: Mapping[str, float | None],
    trouble: Sequence[str],
) -> bool:
    """Writes the summary; `ok` (also returned) is true when the run was whole and every expectation held."""
    ok = bool(verdicts) and all(verdict.held for verdict in verdicts) and not trouble
    summary = {
        "ok": ok,
        "scenario": scenario,
        "seed": seed,
        "expectations": verdicts,
        "figures": figures,
        "trouble": trouble,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    return ok


def write_events(path: Path, notes: Sequence[Note]) -> None:
    """Writes one JSON line per thing that happened, in order of time."""
    lines = [msgspec.json.encode(note) + b"\n" for note in sorted(notes, key=lambda note: note.time)]
    path.write_bytes(b"".join(lines))

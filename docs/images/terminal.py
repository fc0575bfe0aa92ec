"""Draws the terminal view of a finished run: python docs/images/terminal.py RUN SECOND OUT.svg

Uses the live view's own code on the run's records, up to a second of the scenario. The picture needs no network.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import msgspec
from kafka.record import MemoryRecords
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from embedded import scenario
from embedded.live import Stage, frame
from embedded.recording import Note, Recording
from trimtab import codec
from trimtab.messages import FLEETS, SCORES, FleetSpec, Score


def offline(template: str) -> str:
    """The template without the fonts that it would fetch."""
    begin, end = template.index("@font-face"), template.index(".{unique_id}-matrix {{")
    return template[:begin] + template[end:].replace("Fira Code, monospace", "DejaVu Sans Mono, Menlo, Consolas, monospace")


def recording(run: Path, second: float) -> tuple[Recording, float]:
    """What the run had recorded by that second of the scenario, and the unix time of it."""
    notes = [msgspec.json.decode(line, type=Note) for line in (run / "events.jsonl").read_bytes().splitlines()]
    zero = next(note.time - note.at for note in notes if note.at is not None)
    seen: Recording | None = None
    for line in (run / "records.jsonl").read_bytes().splitlines():
        record = msgspec.json.decode(line)
        if record["time"] > zero + second:
            continue
        message = codec.decode(record["topic"], msgspec.json.encode(record["message"]))
        if seen is None:
            if record["topic"] != FLEETS or not isinstance(message, FleetSpec):
                continue
            seen = Recording(spec=message, zero=zero)
        seen.add(message)
    if seen is None:
        raise SystemExit(f"{run} holds no fleet")
    seen.scores.extend(scores(run, zero + second))
    seen.notes = [note for note in notes if note.time <= zero + second]
    return seen, zero + second


def scores(run: Path, until: float) -> list[Score]:
    """The scores of the run's own topic: records.jsonl leaves them out."""
    found = []
    for segment in (run / "stack" / "kafka" / "data").glob(f"{SCORES}-*/*.log"):
        records = MemoryRecords(segment.read_bytes())
        while (batch := records.next_batch()) is not None:
            found += [message for record in batch if isinstance(message := codec.decode(SCORES, record.value), Score)]
    return sorted((score for score in found if score.time <= until), key=lambda score: score.time)


def main(run: Path, second: float, out: Path) -> None:
    """Write the picture."""
    summary = msgspec.json.decode((run / "summary.json").read_bytes())
    played = scenario.read(scenario.find(summary["scenario"]))
    seen, now = recording(run, second)
    console = Console(record=True, width=150, height=40, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(frame(played, summary["seed"], Stage("running", seen.zero), seen, now))
    title = f"trimtab demo --scenario {summary['scenario']} --seed {summary['seed']}"
    out.write_text(console.export_svg(title=title, code_format=offline(CONSOLE_SVG_FORMAT), unique_id="trimtab"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))

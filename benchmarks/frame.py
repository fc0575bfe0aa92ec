"""The frame of every benchmark: what one returns, and how it is printed and written."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Protocol

from rich.console import Console
from rich.table import Table

from trimtab.errors import SettingsError

Cell = str | float | int | None


@dataclass(frozen=True)
class Options:
    """How a benchmark is asked to run: `quick` ends within 50 s, `data` is a folder with data sets, `say` shows progress.

    `seeds`, `runs` (folders of finished runs) and `fleets` (how many): empty where the benchmark is to choose; some take them.
    """

    quick: bool = False
    data: Path | None = None
    seeds: tuple[int, ...] = ()
    runs: tuple[Path, ...] = ()
    fleets: int = 0
    say: Callable[[str], None] = print


@dataclass(frozen=True)
class Result:
    """Rows of a table (the same keys in each), and the flat figures that later runs are compared by. Unknown is None."""

    rows: Sequence[Mapping[str, Cell]]
    figures: Mapping[str, float | None]
    notes: Sequence[str] = field(default_factory=list)


class Benchmark(Protocol):
    """A module of `benchmarks.suite`: its docstring says what it measures and against what.

    A set `TAKES` names which of `data`, `seeds`, `runs` and `fleets` it understands; others are refused.
    """

    def run(self, options: Options) -> Result:
        """Measures."""


def names() -> dict[str, str]:
    """Every benchmark and the first line of what it says about itself."""
    import benchmarks.suite as suite

    found = sorted(module.name for module in iter_modules(suite.__path__))
    return {name: (import_module(f"benchmarks.suite.{name}").__doc__ or "").partition("\n")[0] for name in found}


def measure(name: str, options: Options) -> dict[str, object]:
    """Runs one benchmark: rows, figures, command, machine and time.

    Raises `SettingsError` for an unknown name, and for an option that this benchmark does not understand.
    """
    if name not in names():
        raise SettingsError(f"there is no benchmark '{name}'; there are: {', '.join(names())}")
    module = import_module(f"benchmarks.suite.{name}")
    for option, flag in _FLAGS.items():
        if getattr(options, option) and option not in getattr(module, "TAKES", ()):
            raise SettingsError(f"the benchmark '{name}' takes no {flag}")
    started = time.time()
    result = module.run(options)
    return {
        "name": name,
        "quick": options.quick,
        "command": " ".join(["trimtab", *sys.argv[1:]]),
        "machine": machine(),
        "started": started,
        "seconds": round(time.time() - started, 1),
        "rows": [dict(row) for row in result.rows],
        "figures": dict(result.figures),
        "notes": list(result.notes),
    }


_MOST_SHOWN = 24
_FLAGS = {"data": "--data", "seeds": "--seeds", "runs": "--from", "fleets": "--fleets"}


def parse_seeds(text: str) -> tuple[int, ...]:
    """``1,2,3`` as numbers, each once; raises `SettingsError` for anything else."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise SettingsError(f"--seeds wants whole numbers with commas between them, such as 1,2,3, not '{text}'")
    return tuple(dict.fromkeys(map(int, parts)))


def median(values: Sequence[float | None]) -> float | None:
    """The median, where None is worse than any number: what happened in less than half of the runs has no median."""
    ordered = sorted(math.inf if value is None else value for value in values)
    middle = (len(ordered) - 1) // 2, len(ordered) // 2
    found = sum(ordered[i] for i in middle) / 2 if ordered else math.inf
    return found if math.isfinite(found) else None


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine()
    )
    memory = next((int(line.split()[1]) // 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), None)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_mib": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def show(record: Mapping[str, object], console: Console) -> None:
    """Prints the table and the figures."""
    rows = record["rows"]
    assert isinstance(rows, list)
    table = Table(title=f"{record['name']}{' (quick)' if record['quick'] else ''}")
    for column in rows[0] if rows else []:
        words = all(isinstance(row[column], str) for row in rows)
        table.add_column(column, justify="left" if words else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)
    for kind in ("figures", "machine"):
        values = record[kind]
        assert isinstance(values, dict)
        if len(values) > _MOST_SHOWN:
            console.print(f"[dim]{kind}:[/] {len(values)}, the table's numbers by name; --json FILE writes them")
            continue
        console.print(f"[dim]{kind}:[/] " + "  ".join(f"{key}={_cell(value)}" for key, value in values.items()))
    for note in record["notes"]:  # type: ignore[attr-defined]
        console.print(f"[dim]note:[/] {note}")


def _cell(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write(record: Mapping[str, object], file: Path) -> None:
    """Writes the record as JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f".{file.name}.half")
    half.write_text(json.dumps(record, indent=2) + "\n")
    half.replace(file)

"""Runs the `trimtab models` commands and prints what they found."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from serving_stack.export import ADAPTERS, FLOAT, default_cache, ensure_exported, export_folder, is_tuned, shipped
from trimtab.errors import Missing


def export(adapter: int | None, cache: Path | None) -> None:
    """Export one shipped adapter, or all."""
    console = Console()
    for number in [adapter] if adapter is not None else shipped():
        folder = ensure_exported(number, cache or default_cache(), partial(_say, console, number))
        console.print(f"adapter {number}: {folder}", soft_wrap=True)


def _say(console: Console, number: int, words: str) -> None:
    console.print(f"adapter {number}: {words}")


def accuracy(adapter: int | None, folder: Path | None, cache: Path | None, json_file: Path | None) -> None:
    """Measure shipped adapters, or the one in `folder`, on the test split."""
    from serving_stack.accuracy import measure

    console = Console()
    table = Table("adapter", "weights", "right", "accuracy", "95 % interval", "MB", "per second")
    rows: list[dict[str, object]] = []
    chosen = [folder] if folder is not None else [ADAPTERS / str(n) for n in ([adapter] if adapter is not None else shipped())]
    for source in chosen:
        if not is_tuned(source):
            known = ", ".join(map(str, shipped())) or "none"
            raise Missing(f"{source} holds no adapter and no tuned network: shipped are {known}")
        with console.status(f"{source.name}: exporting, then asking 3,080 questions twice"):
            results = measure(export_folder(source, cache or default_cache()))
        for r in results:
            rows.append({"adapter": source.name, **r.as_dict()})
            weights = "float32" if r.model == FLOAT else "int8"
            figures = (f"{r.right}/{r.total}", f"{r.accuracy:.2%}", f"{r.low:.1%} to {r.high:.1%}", f"{r.bytes / 1e6:.0f}")
            table.add_row(source.name, weights, *figures, f"{r.total / r.seconds:.0f}")
    console.print("BANKING77, test split (never used for tuning or choosing)")
    console.print(table)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({"data": "BANKING77 test", "rows": rows}, indent=1) + "\n", encoding="utf-8")


def list_shipped() -> None:
    """List the shipped adapters by their result cards."""
    console = Console()
    table = Table("adapter", "base", "epoch", "validation accuracy", "trained weights", "tuning")
    for number in shipped():
        card = json.loads((ADAPTERS / str(number) / "card.json").read_text(encoding="utf-8"))
        minutes = f"{card['tuning_seconds'] / 60:.0f} min"
        score = card["validation_accuracy"]
        scores = (str(card["epoch"]), "nothing held out" if score is None else f"{score:.2%}", f"{card['trained_parameters']:,}")
        table.add_row(str(number), card["base"], *scores, minutes)
    console.print(table)

"""Runs the `trimtab models` commands and prints what they found."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from serving_stack.export import ADAPTERS, ensure_exported, export_folder, shipped
from serving_stack.repository import versions
from trimtab.errors import Missing


def export(adapter: int | None, cache: Path) -> None:
    """Export one shipped adapter, or all."""
    console = Console()
    for number in [adapter] if adapter is not None else shipped():
        with console.status(f"adapter {number}") as status:
            folder = ensure_exported(number, cache, lambda words, n=number: status.update(f"adapter {n}: {words}"))  # type: ignore[misc]
        console.print(f"adapter {number}: {folder}", soft_wrap=True)


def accuracy(adapter: int | None, folder: Path | None, cache: Path, json_file: Path | None) -> None:
    """Measure shipped adapters, or the one in `folder`, on the test split."""
    from serving_stack.accuracy import measure

    console = Console()
    table = Table("adapter", "model", "right", "accuracy", "95 % interval", "mean confidence", "MB", "questions/s")
    rows: list[dict[str, object]] = []
    chosen = [folder] if folder is not None else [ADAPTERS / str(n) for n in ([adapter] if adapter is not None else shipped())]
    for source in chosen:
        if not (source / "adapter_model.safetensors").is_file():
            raise Missing(f"{source} holds no adapter: shipped are {', '.join(map(str, shipped())) or 'none'}")
        with console.status(f"{source.name}: exporting, then asking 3,080 questions twice"):
            results = measure(export_folder(source, cache))
        for r in results:
            rows.append({"adapter": source.name, **r.as_dict()})
            interval = f"{r.low:.2%} to {r.high:.2%}"
            figures = (f"{r.right}/{r.total}", f"{r.accuracy:.2%}", interval, f"{r.mean_confidence:.3f}", f"{r.bytes / 1e6:.1f}")
            table.add_row(source.name, r.model, *figures, f"{r.total / r.seconds:.0f}")
    console.print("BANKING77, test split (never used for tuning or choosing)")
    console.print(table)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({"data": "BANKING77 test", "rows": rows}, indent=1) + "\n", encoding="utf-8")


def show(store: Path | None, model: str) -> None:
    """List the shipped adapters by their result cards, and the versions in a store."""
    console = Console()
    table = Table("adapter", "base", "epoch", "validation accuracy", "trained weights", "tuning")
    for number in shipped():
        card = json.loads((ADAPTERS / str(number) / "card.json").read_text(encoding="utf-8"))
        minutes = f"{card['tuning_seconds'] / 60:.0f} min"
        scores = (str(card["epoch"]), f"{card['validation_accuracy']:.2%}", f"{card['trained_parameters']:,}")
        table.add_row(str(number), card["base"], *scores, minutes)
    console.print(table)
    if store is not None:
        found = versions(store, model)
        console.print(
            f"{store}: {model} has {'versions ' + ', '.join(map(str, found)) if found else 'no version'}", soft_wrap=True
        )

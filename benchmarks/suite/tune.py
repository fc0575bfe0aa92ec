"""Ways of tuning the served model: accuracy, size, bytes that a new task moves, latency, throughput; float32 beside int8.

Measured: the newest shipped LoRA adapter, and folders of `trimtab tune` and `trimtab compress` given with --from. Others that
were tuned once are too large to be shipped; their rows come from kept result cards, and say so.

Figures: `lora_accuracy`, `prefix_accuracy`, `full_accuracy`, `distill_accuracy`, `prune_accuracy` (ratios, float32),
`lora_int8_accuracy`, `int8_loss_points` (percentage points) and `adapter_bytes` (what a new task moves) of the shipped adapter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.frame import Cell, Options, Result
from benchmarks.tune.cards import kept, name_of
from benchmarks.tune.speed import speed
from serving_stack.accuracy import measure
from serving_stack.banking import questions
from serving_stack.export import ADAPTERS, FLOAT, default_cache, export_folder, is_tuned, moved, shipped
from trimtab.errors import Missing

TAKES = {"runs"}


def run(options: Options) -> Result:
    """Measures what is there; quick: only the shipped adapter, and speed over fewer questions."""
    folders = [ADAPTERS / str(shipped()[-1]), *options.runs]
    for folder in folders:
        if not is_tuned(folder):
            raise Missing(f"{folder} holds no adapter and no tuned network, as `trimtab tune` writes them")
    rows: list[dict[str, Cell]] = []
    figures: dict[str, float | None] = {}
    for folder in folders:
        found = _measured(folder, options)
        rows += found
        name = found[0]["method"]
        figures[f"{name}_accuracy"] = float(str(found[0]["accuracy"]))
        if folder.parent == ADAPTERS:
            small = float(str(found[1]["accuracy"]))
            figures |= {
                "lora_int8_accuracy": small,
                "int8_loss_points": 100 * (figures["lora_accuracy"] or 0.0) - 100 * small,
                "adapter_bytes": float(moved(folder)),
            }
    for name, card in kept().items():
        if not any(row["method"] == name for row in rows):
            rows += _remembered(name, card)
            figures[f"{name}_accuracy"] = card["test"]["float32"]["accuracy"]
    return Result(
        rows,
        figures,
        [
            "accuracy on BANKING77's test split, 3,080 questions, with 95 % intervals by Wilson; nothing was chosen by it",
            "latency: median of one question at a time; per second: batches of 32; both on one thread, tokenizing included",
            "rows from a card were measured when they were tuned; --from FOLDER measures a folder of your own",
        ],
    )


def _measured(folder: Path, options: Options) -> list[dict[str, Cell]]:
    options.say(f"{folder.name}: exporting if needed, then 3,080 questions to float32 and to int8")
    exported = export_folder(folder, default_cache())
    texts = [q.text for q in questions("test")][: 200 if options.quick else 1000]
    card = json.loads((folder / "card.json").read_text()) if (folder / "card.json").is_file() else {}
    rows: list[dict[str, Cell]] = []
    for found in measure(exported):
        alone, together = speed(exported / found.model, texts)
        rows.append(
            {
                "method": name_of(card),
                "weights": "float32" if found.model == FLOAT else "int8",
                "accuracy": found.accuracy,
                "low": found.low,
                "high": found.high,
                "served_megabytes": found.bytes / 1e6,
                "moved_megabytes": moved(folder) / 1e6,
                "latency_ms": alone,
                "per_second": together,
                "from": "measured",
            }
        )
    return rows


def _remembered(name: str, card: dict[str, Any]) -> list[dict[str, Cell]]:
    return [
        {
            "method": name,
            "weights": weights,
            **{key: found[key] for key in ("accuracy", "low", "high")},
            "served_megabytes": found["bytes"] / 1e6,
            "moved_megabytes": card["bytes"] / 1e6,
            "latency_ms": None,
            "per_second": None,
            "from": "card",
        }
        for weights, found in card["test"].items()
    ]

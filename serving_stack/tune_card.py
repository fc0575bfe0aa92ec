"""The result card of tuning: from what, how, how good, how long, how large."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from serving_stack import network as net

# isort: split
import torch

from serving_stack.export import moved
from serving_stack.intervals import wilson
from serving_stack.tune import Tuning, chosen

CARD = "card.json"


def cards(tuning: Tuning) -> Iterator[tuple[Path, dict[str, Any]]]:
    """For each chosen version: the folder of its weights and its result card, also written there as `card.json`."""
    for number, epoch in enumerate(chosen(tuning.history), start=1):
        folder = tuning.adapter(epoch)
        card = {"version": number, **describe(tuning, epoch), "bytes": moved(folder)}
        (folder / CARD).write_text(json.dumps(card, indent=2) + "\n")
        yield folder, card


def describe(tuning: Tuning, epoch: int) -> dict[str, Any]:
    """What is known of one epoch. Where nothing was held out, accuracy and interval are null."""
    row, held, data = tuning.history[epoch - 1], len(tuning.held[0]), tuning.data
    score = row["validation"]
    known = not math.isnan(score)
    return {
        "base": net.BASE,
        "method": tuning.recipe.method,
        "data": {
            "name": data.name,
            "licence": data.licence,
            "sha256": data.digest,
            "train": len(tuning.ids),
            "validation": held,
            "labels": len(data.labels),
        },
        "recipe": asdict(tuning.recipe),
        "teachers": tuning.about.teachers,
        "trained_parameters": sum(p.numel() for p in tuning.trained.values()),
        "epoch": epoch,
        "validation_accuracy": round(score, 4) if known else None,
        "validation_interval": [round(end, 4) for end in wilson(round(score * held), held)] if known else None,
        "temperature": round(row["temperature"], 3),
        "tuning_seconds": round(sum(r["seconds"] for r in tuning.history[:epoch])),
        "processor": {
            "device": str(tuning.device),
            "processes": tuning.accelerator.num_processes,
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
        },
        "made_with": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")},
    }

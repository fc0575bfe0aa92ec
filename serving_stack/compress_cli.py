"""Runs `trimtab compress`: shows progress, writes the smaller model and its result card, and says what it cost."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from serving_stack import network as net
from serving_stack.accuracy import Accuracy, measure
from serving_stack.compress import pruned, student, zeros
from serving_stack.export import ADAPTERS, FLOAT, INT8, default_cache, export_folder, is_tuned, moved, shipped
from serving_stack.recipe import Recipe
from serving_stack.tune import Tuning, accuracy, chosen
from serving_stack.tune_card import CARD, describe
from serving_stack.tune_cli import learn
from serving_stack.tune_data import Labelled, banking, read
from trimtab.errors import Missing

MODEL = "model"
"""Where in the folder of a run its result lies."""


def int8(source: str, out: Path, data: Path | None) -> None:
    """Copy the exported files of `source` to `out`, with a card that has both accuracies on the held-out questions."""
    console = Console()
    folder, texts = find(source), _data(data)
    exported = export_folder(folder, default_cache(), console.print)
    held = texts.split(Recipe.validation, Recipe.seed)[1]
    float32, small = measure(exported, asked=held)
    shutil.copytree(exported, out, dirs_exist_ok=True)
    card = {
        **_card_of(folder),
        "int8": {**_figures(small), "bytes": small.bytes},
        "float32": {**_figures(float32), "bytes": float32.bytes},
        "loss_points": round(100 * (float32.accuracy - small.accuracy), 2),
    }
    _tell(console, out, card)
    smaller = f"{float32.bytes / 1e6:.1f} MB -> {small.bytes / 1e6:.1f} MB"
    console.print(
        f"{FLOAT} -> {INT8}: {smaller}, {float32.accuracy:.2%} -> {small.accuracy:.2%} of {len(held)} held-out questions"
    )


def distill(source: str, out: Path, data: Path | None, layers: int, epochs: int, seed: int) -> None:
    """Tune the student, and write its best epoch to `out/model`."""
    folder = find(source)
    tuning = student(folder, out, _data(data), layers=layers, epochs=epochs, seed=seed)
    _finish(tuning, folder, {"method": "distill", "layers": layers})


def prune(source: str, out: Path, data: Path | None, sparsity: float, epochs: int, seed: int) -> None:
    """Prune, tune what is left, and write the best epoch to `out/model`."""
    folder = find(source)
    tuning = pruned(folder, out, _data(data), sparsity=sparsity, epochs=epochs, seed=seed)
    before = accuracy(tuning.network, *tuning.held, tuning.device)
    _finish(
        tuning,
        folder,
        {"method": "prune", "sparsity": round(zeros(tuning.network), 4), "accuracy_before_recovery": round(before, 4)},
    )


def find(source: str) -> Path:
    """A tuned folder, or the shipped adapter of that number. Raises `Missing`."""
    if source.isdigit() and int(source) in shipped():
        return ADAPTERS / source
    if not is_tuned(Path(source)):
        raise Missing(f"{source} holds no adapter and no tuned network, and no adapter of that number is shipped")
    return Path(source)


def _data(file: Path | None) -> Labelled:
    return read(file) if file else banking()


def _finish(tuning: Tuning, source: Path, how: dict[str, Any]) -> None:
    console = Console(quiet=not tuning.accelerator.is_main_process)
    teacher = accuracy(net.load_merged(source).to(tuning.device), *tuning.held, tuning.device)
    learn(tuning, console)
    if not tuning.accelerator.is_main_process:
        return
    out = tuning.folder / MODEL
    shutil.rmtree(out, ignore_errors=True)
    if tuning.history:
        epoch = chosen(tuning.history)[1]
        shutil.copytree(tuning.adapter(epoch), out)
        card = describe(tuning, epoch)
    else:
        net.save(tuning.network, out, tuning.data.labels)
        card = {"base": net.BASE, "recipe": asdict(tuning.recipe), "validation_accuracy": how["accuracy_before_recovery"]}
    made_from = {"name": source.absolute().name, "sha256": tuning.about.teachers[0], "validation_accuracy": round(teacher, 4)}
    _tell(console, out, {**card, "compress": how, "made_from": made_from, "bytes": moved(out)})


def _card_of(folder: Path) -> dict[str, Any]:
    file = folder / CARD
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def _figures(found: Accuracy) -> dict[str, Any]:
    return {
        "validation_accuracy": round(found.accuracy, 4),
        "validation_interval": [round(found.low, 4), round(found.high, 4)],
    }


def _tell(console: Console, out: Path, card: dict[str, Any]) -> None:
    (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    console.print(f"{out}")
    console.print_json(json.dumps(card))

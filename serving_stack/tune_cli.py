"""Runs `trimtab tune`: shows progress, then writes the two chosen versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from serving_stack import tune
from serving_stack.recipe import Recipe
from serving_stack.tune_card import cards
from serving_stack.tune_data import banking, read


def run(out: Path, recipe: Recipe, data: Path | None = None, teachers: tuple[Path, ...] = ()) -> None:
    """Tune in `out` (resuming what is there) and copy the versions to `out/adapters/1` and `out/adapters/2`."""
    tuning = tune.Tuning(out, recipe, read(data) if data else banking(), teachers)
    main = tuning.accelerator.is_main_process
    console = Console(quiet=not main)
    learn(tuning, console)
    if not main:
        return
    for folder, card in cards(tuning):
        to = out / "adapters" / str(card["version"])
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(folder, to)
        console.print(f"version {card['version']}: {to}")
        console.print_json(json.dumps(card))


def learn(tuning: tune.Tuning, console: Console) -> None:
    """Train what is left, with a bar on a terminal and a line per epoch everywhere."""
    epochs = tuning.recipe.epochs
    where = f"{tuning.accelerator.num_processes} processes on {tuning.device.type}"
    console.print(f"{tuning.recipe.method}: {len(tuning.ids)} texts to learn from, {len(tuning.held[0])} held out, {where}")
    if tuning.history:
        console.print(f"resuming after epoch {len(tuning.history)} of {epochs}")
    columns = (
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("tune", epoch=1, epochs=epochs, loss=float("nan"), total=None)
        tuning.run(_teller(bar, task, console))


def _teller(bar: Progress, task: object, console: Console) -> Callable[[tune.Progress], None]:
    def tell(now: tune.Progress) -> None:
        bar.update(task, completed=now.step, total=now.steps, epoch=now.epoch, loss=now.loss)  # type: ignore[arg-type]
        if now.validation is not None:
            score = "nothing held out" if now.validation != now.validation else f"validation accuracy {now.validation:.2%}"
            console.print(f"epoch {now.epoch}: loss {now.loss:.4f}, {score}")

    return tell

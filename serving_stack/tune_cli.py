"""Runs `trimtab tune`: shows progress, then writes the two chosen versions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from serving_stack import tune
from serving_stack.recipe import Recipe


def run(out: Path, *, epochs: int, rank: int, rate: float, seed: int) -> None:
    """Tune in `out` (resuming what is there) and copy the versions to `out/adapters/1` and `out/adapters/2`."""
    console = Console()
    tuning = tune.Tuning(out, Recipe(epochs=epochs, rank=rank, rate=rate, seed=seed))
    if tuning.history:
        console.print(f"resuming after epoch {len(tuning.history)} of {epochs}")
    columns = (
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("tune", epoch=1, epochs=epochs, loss=float("nan"), total=None)

        def tell(now: tune.Progress) -> None:
            bar.update(task, completed=now.step, total=now.steps, epoch=now.epoch, loss=now.loss)
            if now.validation is not None:
                console.print(f"epoch {now.epoch}: loss {now.loss:.4f}, validation accuracy {now.validation:.2%}")

        tuning.run(tell)
    for folder, card in tune.cards(tuning):
        to = out / "adapters" / str(card["version"])
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(folder, to)
        console.print(f"version {card['version']}: {to}")
        console.print_json(json.dumps(card))

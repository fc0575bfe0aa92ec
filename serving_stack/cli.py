"""The commands `trimtab tune` and `trimtab models`."""

from __future__ import annotations

from pathlib import Path

import typer

tune = typer.Typer(help="Fine-tune the served model.")


@tune.command()
def _tune(
    out: Path = typer.Option(Path("runs/tune"), help="Folder for checkpoints and results; the same folder again resumes."),
    epochs: int = typer.Option(12, min=1, help="Passes over the training data. A pass takes 1 to 2 minutes on 2 cores."),
    rank: int = typer.Option(16, min=1, max=128, help="Rank of the LoRA matrices: more is larger and can learn more."),
    rate: float = typer.Option(1e-3, min=1e-6, max=1.0, help="Peak learning rate."),
    seed: int = typer.Option(7, help="Decides validation split, order, dropout and initial weights."),
) -> None:
    """Fine-tune MiniLM on BANKING77 with LoRA (PEFT) and write two versions of the adapter.

    Version 1 is the checkpoint half way, version 2 the one that is best on the held-out part of the training split.
    Trimtab ships both, so that nothing else needs this command. It needs the extra `train` (torch, peft).

    Example: trimtab tune --out runs/tune --epochs 12
    """
    from serving_stack.tune_cli import run

    run(out, epochs=epochs, rank=rank, rate=rate, seed=seed)

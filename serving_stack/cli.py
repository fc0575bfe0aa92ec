"""The commands `trimtab tune` and `trimtab models`."""

from __future__ import annotations

from pathlib import Path

import typer

from serving_stack.gateway_sync_cli import gateway_sync as gateway_sync
from serving_stack.traffic_cli import traffic as traffic

tune = typer.Typer(help="Fine-tune the served model.", add_completion=False)


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


models = typer.Typer(help="Export, list and measure the served models.", add_completion=False, no_args_is_help=True)

_CACHE = typer.Option(
    None, help="Where exported models are kept. [default: TRIMTAB_CACHE or ~/.cache/trimtab, in models/]", show_default=False
)


@models.command("export")
def _export(
    adapter: int = typer.Option(None, min=1, help="Which shipped adapter. [default: all]", show_default=False),
    cache: Path = _CACHE,
) -> None:
    """Merge an adapter into MiniLM and write ONNX files (float32 and int8), unless they are there already.

    The demo does this by itself on first use; it takes about half a minute per adapter.

    Example: trimtab models export --adapter 2
    """
    from serving_stack.models_cli import export

    export(adapter, cache)


@models.command("accuracy")
def _accuracy(
    adapter: int = typer.Option(None, min=1, help="Which shipped adapter. [default: all]", show_default=False),
    folder: Path = typer.Option(None, help="An adapter that `trimtab tune` made, instead of a shipped one.", show_default=False),
    cache: Path = _CACHE,
    json_file: Path = typer.Option(None, "--json", help="Also write the rows to this file.", show_default=False),
) -> None:
    """Measure how many of BANKING77's 3,080 test questions are answered rightly, in float32 and in int8 as served.

    Example: trimtab models accuracy --adapter 2
    """
    from serving_stack.models_cli import accuracy

    accuracy(adapter, folder, cache, json_file)


@models.command("list")
def _list(
    store: Path = typer.Option(None, help="A model repository store whose versions are listed too.", show_default=False),
    model: str = typer.Option("intent", help="The model in that store."),
) -> None:
    """List the adapters that are shipped, with how they were made, and the versions that a store holds.

    Example: trimtab models list --store runs/demo/store
    """
    from serving_stack.models_cli import show

    show(store, model)

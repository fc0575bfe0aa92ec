"""The commands `trimtab tune` and `trimtab compress`."""
# ruff: noqa: B008

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

tune = typer.Typer(help="Fine-tune the served model.", add_completion=False)


class Method(StrEnum):
    """What of the base model is trained."""

    lora = "lora"
    prefix = "prefix"
    full = "full"


class _Precision(StrEnum):
    bf16 = "bf16"
    fp32 = "fp32"


_DATA = typer.Option(
    None, help="Your own labelled text: CSV or JSONL with text and label. [default: BANKING77, as shipped]", show_default=False
)


@tune.command()
def _tune(
    method: Method = typer.Option(Method.lora, help="LoRA matrices, a prefix for each layer (P-tuning v2), or all weights."),
    data: Path = _DATA,
    out: Path = typer.Option(Path("runs/tune"), help="Folder for checkpoints and results; the same folder again resumes."),
    epochs: int = typer.Option(12, min=1, help="Passes over the training data. A pass takes about a minute on 2 cores."),
    batch: int = typer.Option(32, min=2, help="Texts per step, over all processes together."),
    rank: int = typer.Option(16, min=1, max=128, help="lora: rank of the matrices. More is larger and can learn more."),
    tokens: int = typer.Option(16, min=1, max=128, help="prefix: virtual tokens in front of each layer."),
    rate: float = typer.Option(
        None, min=1e-6, max=1.0, help="Peak learning rate. [default: lora 1e-3, prefix 5e-3, full 1e-4]", show_default=False
    ),
    agreement: float = typer.Option(
        0.0, min=0.0, help="Weight of R-Drop: two answers under other dropout are to agree. Not 0: twice the time."
    ),
    smoothing: float = typer.Option(0.0, min=0.0, max=0.5, help="Share of each label that is spread over all classes."),
    masking: float = typer.Option(0.0, min=0.0, max=0.5, help="Share of the words that are hidden, others in each pass."),
    teacher: list[Path] = typer.Option(
        [],
        help="Folder of a tuned model whose answers are learned besides the labels. Repeatable: their mean.",
        show_default=False,
    ),
    validation: float = typer.Option(
        0.1, min=0.0, max=0.5, help="Share of each label held out to choose the epoch. 0: learn from all, keep the last epoch."
    ),
    temperature: float = typer.Option(
        1.0, min=0.05, max=20.0, help="What logits are divided by with --validation 0; else it is fitted on what is held out."
    ),
    precision: _Precision = typer.Option(_Precision.bf16, help="Of matrix products while training."),
    seed: int = typer.Option(7, help="Decides validation split, order, dropout and initial weights."),
) -> None:
    """Fine-tune MiniLM on labelled text, and write two versions: the checkpoint half way, and the best on what was held out.

    A killed run resumes after its last whole epoch when it is started again. Each version has a result card. It needs the extra
    `train`.

    Example: trimtab tune --out runs/tune

    Example: trimtab tune --method prefix --data tickets.csv --out runs/tickets

    On several GPUs or processes: accelerate launch --num_processes 2 -m trimtab tune --out runs/tune
    """
    from serving_stack.recipe import RATES, Recipe
    from serving_stack.tune_cli import run

    recipe = Recipe(
        method=method.value,
        epochs=epochs,
        batch=batch,
        rate=RATES[method.value] if rate is None else rate,
        rank=rank,
        tokens=tokens,
        agreement=agreement,
        smoothing=smoothing,
        masking=masking,
        validation=validation,
        temperature=temperature,
        precision=precision.value,
        seed=seed,
    )
    run(out, recipe, data, tuple(teacher))


compress = typer.Typer(help="Make a tuned model smaller or faster.", add_completion=False, no_args_is_help=True)

_SOURCE = typer.Argument(
    ..., help="A folder that `trimtab tune` made, such as runs/tune/adapters/2, or the number of a shipped adapter."
)
_OUT = typer.Option(..., help="Folder for the result.", show_default=False)


@compress.command("int8")
def _int8(source: str = _SOURCE, out: Path = _OUT, data: Path = _DATA) -> None:
    """Quantise the weights to int8 for onnxruntime, and say what that costs on the questions held out of the training split.

    The result is an exported model, as `trimtab models add` takes it.

    Example: trimtab compress int8 runs/tune/adapters/2 --out runs/int8
    """
    from serving_stack.compress_cli import int8

    int8(source, out, data)


@compress.command("distill")
def _distill(
    source: str = _SOURCE,
    out: Path = _OUT,
    data: Path = _DATA,
    layers: int = typer.Option(3, min=1, max=5, help="How many of the 6 layers the student has."),
    epochs: int = typer.Option(6, min=1, help="Passes over the training data."),
    seed: int = typer.Option(7, help="Decides order and dropout."),
) -> None:
    """Teach a network of fewer layers to answer as the tuned one does. The same folder again resumes.

    The student begins with evenly spread layers of its teacher, and learns its answers besides the labels.

    Example: trimtab compress distill runs/tune/adapters/2 --layers 3 --out runs/student
    """
    from serving_stack.compress_cli import distill

    distill(source, out, data, layers, epochs, seed)


@compress.command("prune")
def _prune(
    source: str = _SOURCE,
    out: Path = _OUT,
    data: Path = _DATA,
    sparsity: float = typer.Option(0.5, min=0.01, max=0.99, help="Share of the encoder's linear weights that become zero."),
    epochs: int = typer.Option(2, min=0, help="Passes over the training data to recover; zeros stay. 0: none."),
    seed: int = typer.Option(7, help="Decides order and dropout."),
) -> None:
    """Set the smallest weights to zero. It saves bytes where the files travel compressed; onnxruntime is not faster for it.

    Example: trimtab compress prune runs/tune/adapters/2 --sparsity 0.5 --out runs/pruned
    """
    from serving_stack.compress_cli import prune

    prune(source, out, data, sparsity, epochs, seed)

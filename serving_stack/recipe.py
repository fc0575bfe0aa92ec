"""What decides the result of tuning: settings, order of the questions, learning rate, choice of checkpoints. No torch here."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Method = Literal["lora", "prefix", "full"]
Precision = Literal["bf16", "fp32"]

METHODS: tuple[Method, ...] = ("lora", "prefix", "full")
RATES: dict[Method, float] = {"lora": 1e-3, "prefix": 5e-3, "full": 1e-4}
"""The peak learning rate that suits each method: the fewer weights it trains, the larger its steps must be."""


@dataclass(frozen=True)
class Recipe:
    """What decides the result. A checkpoint of another recipe is not resumed."""

    method: Method = "lora"
    epochs: int = 12
    batch: int = 32
    """Questions per step, over all processes together."""
    rate: float = 1e-3
    """Peak learning rate of AdamW: reached after the warm-up, then linearly down to zero."""
    head_rate: float = 1e-3
    """The same for the head, which starts at the means of the classes and not at the base model's weights."""
    warm_up: float = 0.06
    """Share of all steps."""
    decay: float = 0.01
    rank: int = 16
    """Of the LoRA matrices."""
    tokens: int = 16
    """Virtual tokens in front of each layer's keys and values, for `prefix`."""
    layers: int = 0
    """How many of the base model's layers are kept, for `full`. 0: all."""
    sparsity: float = 0.0
    """Share of the encoder's linear weights that are held at zero, for `full`."""
    dropout: float = 0.1
    """Of hidden states and attention in the base model."""
    agreement: float = 0.0
    """Weight of R-Drop: each question goes through twice, and both answers are to agree. 0: once, which costs half."""
    smoothing: float = 0.0
    """Share of each label that is spread over all classes."""
    masking: float = 0.0
    """Share of the words that are hidden from the network, others in each epoch."""
    average: float = 0.998
    """Decay per step of the running average of the weights: the average is what is measured and kept. 0: the last weights."""
    teaching: float = 0.5
    """Share of the loss that comes from the teacher, where one is given."""
    precision: Precision = "bf16"
    """Of matrix products while training; weights and optimizer are always float32."""
    validation: float = 0.1
    """Share of the training split that is held out to choose the checkpoint. The test split is never looked at here."""
    temperature: float = 1.0
    """What logits are divided by where nothing is held out to fit it."""
    seed: int = 7


def batches(lengths: list[int], size: int, chance: random.Random) -> list[list[int]]:
    """Positions in batches of similar length (little padding), in random order; every position occurs once."""
    order = list(range(len(lengths)))
    chance.shuffle(order)
    chunk = size * 50  # sort within chunks: alike lengths together, yet not the same batches in each epoch
    made: list[list[int]] = []
    for start in range(0, len(order), chunk):
        part = sorted(order[start : start + chunk], key=lengths.__getitem__)
        made += [part[i : i + size] for i in range(0, len(part), size)]
    chance.shuffle(made)
    return made


def share(rows: list[int], process: int, processes: int) -> tuple[list[int], float]:
    """What one of several processes takes of a batch, and the factor of its mean loss.

    The mean over all processes of (factor x mean loss of the share) is the mean loss of the batch. Nobody goes without a row, as
    all must take part in each step: one for whom there is none takes the first, with factor 0.
    """
    mine = rows[process::processes]
    return (mine, len(mine) * processes / len(rows)) if mine else (rows[:1], 0.0)


def factor_at(step: int, steps: int, recipe: Recipe) -> float:
    """The share of the peak learning rate in one step, 0..1: linear warm-up, then linear decay to zero."""
    warm = max(1, round(steps * recipe.warm_up))
    return min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))


def average_at(step: int, recipe: Recipe) -> float:
    """How much of the running average stays in one step: less at first, so that it is not the average of the beginning."""
    return min(recipe.average, (1 + step) / (10 + step))


def chosen(history: list[dict[str, float]]) -> tuple[int, int]:
    """The epochs that become version 1 and version 2: half way, and the best on validation from there on (later wins a tie).

    Where nothing was held out there is nothing to choose by, and version 2 is the last epoch.
    """
    half = half_way(len(history))
    rest = history[half:] or history
    if any(row["validation"] != row["validation"] for row in rest):
        return half, int(rest[-1]["epoch"])
    return half, int(max(rest, key=lambda row: (row["validation"], row["epoch"]))["epoch"])


def half_way(epochs: int) -> int:
    """The epoch that becomes version 1, of so many."""
    return max(1, epochs // 2)

"""What decides the result of tuning: settings, order of the questions, learning rate, choice of checkpoints. No torch here."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What decides the result. A checkpoint of another recipe is not resumed."""

    epochs: int = 12
    batch: int = 32
    rate: float = 1e-3
    """Peak learning rate of AdamW: reached after the warm-up, then linearly down to zero."""
    warm_up: float = 0.06
    """Share of all steps."""
    decay: float = 0.01
    rank: int = 16
    dropout: float = 0.1
    validation: float = 0.1
    """Share of the training split that is held out to choose the checkpoint. The test split is never looked at here."""
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


def rate_at(step: int, steps: int, recipe: Recipe) -> float:
    """The learning rate of one step: linear warm-up, then linear decay to zero."""
    warm = max(1, round(steps * recipe.warm_up))
    return recipe.rate * min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))


def chosen(history: list[dict[str, float]]) -> tuple[int, int]:
    """The epochs that become version 1 and version 2: half way, and the best on validation from there on (later wins a tie)."""
    half = max(1, len(history) // 2)
    return half, int(max(history[half:] or history, key=lambda row: (row["validation"], row["epoch"]))["epoch"])

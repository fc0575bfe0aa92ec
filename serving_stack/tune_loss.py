"""What tuning makes small: cross-entropy, with R-Drop and a teacher where the recipe asks for them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as f

from serving_stack.recipe import Recipe

_TEMPERATURE = 2.0
"""Of the teacher's answers: higher shows more of what it thinks of the other classes (Hinton et al. 2015)."""


_MASK, _SPECIAL = 103, 999
"""BERT's vocabulary: what stands for a hidden word, and the last number that is no word."""


def hidden(ids: Tensor, share: float) -> Tensor:
    """The same token ids with a random share of the words hidden: what is asked must be clear from the others."""
    lost = (torch.rand(ids.shape) < share) & (ids > _SPECIAL)
    return torch.where(lost, torch.full_like(ids, _MASK), ids)


def twice(rows: Tensor) -> Tensor:
    """The same rows once more behind themselves, for R-Drop."""
    return torch.cat([rows, rows])


def objective(logits: Tensor, labels: Tensor, recipe: Recipe, teacher: Tensor | None = None) -> Tensor:
    """The loss of a batch: a scalar.

    `logits` is float32 [batch, classes], `labels` int64 [batch]; with `recipe.agreement` the second half repeats the first half's
    questions under other dropout, and the divergence of both, in both directions, is added (R-Drop, Liang et al. 2021). `teacher`
    is the teacher's logits [batch, classes].
    """
    loss = f.cross_entropy(logits, labels, label_smoothing=recipe.smoothing)
    if teacher is not None:
        soft = f.log_softmax(logits / _TEMPERATURE, 1)
        apart = f.kl_div(soft, f.softmax(teacher / _TEMPERATURE, 1), reduction="batchmean") * _TEMPERATURE**2
        loss = (1 - recipe.teaching) * loss + recipe.teaching * apart
    if recipe.agreement:
        one, other = f.log_softmax(logits, 1).chunk(2)
        both = f.kl_div(one, other, log_target=True, reduction="batchmean")
        both = both + f.kl_div(other, one, log_target=True, reduction="batchmean")
        loss = loss + recipe.agreement * both / 2
    return loss

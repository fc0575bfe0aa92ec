"""How sure the answers are: one number makes a confidence of 90 % right nine times in ten (Guo et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as f

_LEAST, _MOST, _STEPS = 0.05, 20.0, 60


def temperature(logits: Tensor, labels: Tensor) -> float:
    """What to divide logits [questions, classes] by, so that held-out labels [questions] are as likely as they can be made.

    Between 0.05 and 20. It changes no answer, only how sure it is. 1.0 without questions.
    """
    if not len(labels):
        return 1.0
    low, high = 1 / _MOST, 1 / _LEAST
    for _ in range(_STEPS):  # the loss is convex in the inverse
        third = (high - low) / 3
        if _loss(logits, labels, low + third) < _loss(logits, labels, high - third):
            high -= third
        else:
            low += third
    return 2 / (low + high)


def _loss(logits: Tensor, labels: Tensor, inverse: float) -> float:
    return float(f.cross_entropy(logits.double() * inverse, labels))


@torch.no_grad()
def cool(head: torch.nn.Linear, by: float) -> None:
    """Divide what a head gives by a temperature: in its weights, so that serving costs nothing more."""
    head.weight.div_(by)
    head.bias.div_(by)

"""Weights that are spread over processes (FSDP), as whole tensors and back. Plain tensors pass through."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. Where it is spread, every process must ask at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(value: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, spread as `other` is and on its device. Numbers without dimension stay where they are."""
    if isinstance(other, DTensor) and value.dim():
        return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)
    return value.to(other.device) if value.dim() else value

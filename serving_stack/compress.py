"""A tuned network made smaller: fewer layers taught by it, or its smallest weights set to zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from serving_stack import network as net

# isort: split
import torch
from peft import PeftModel
from torch import Tensor, nn

from serving_stack.recipe import RATES, Recipe
from serving_stack.tune import Tuning
from serving_stack.tune_data import Labelled
from trimtab.errors import TrimtabError

_FULL = Recipe(method="full", rate=RATES["full"])


def student(source: Path, out: Path, data: Labelled, *, layers: int, epochs: int, seed: int) -> Tuning:
    """The tuning of a network of `layers` layers by the one in `source` (Hinton et al. 2015; layers as in DistilBERT).

    Labels and the teacher's answers count alike. Raises `TrimtabError` for a teacher that cannot be shortened.
    """
    started = _unwrapped(source)
    count = started.body.config.num_hidden_layers
    if layers >= count:
        raise TrimtabError(f"{source} has {count} layers: a student has fewer, not {layers}")
    recipe = replace(_FULL, epochs=epochs, seed=seed, layers=layers)
    return Tuning(out, recipe, data, (source,), net.shorten(started, layers))


def pruned(source: Path, out: Path, data: Labelled, *, sparsity: float, epochs: int, seed: int) -> Tuning:
    """The tuning that gives a pruned network back what it lost: zeros stay zeros, and the unpruned network teaches it."""
    network = _unwrapped(source)
    masks = prune(network, sparsity)
    recipe = replace(_FULL, epochs=epochs, seed=seed, sparsity=sparsity)
    return Tuning(out, recipe, data, (source,), network, holding(masks))


def prune(network: nn.Module, sparsity: float) -> dict[str, Tensor]:
    """Set the smallest weights, by magnitude and over all linear layers of the encoder together, to zero.

    Returns for each layer's weight where it may be other than zero (Han et al. 2015). Biases, embeddings,
    norms and the head stay.
    """
    layers = {n: p for n, p in network.named_parameters() if ".layer." in n and n.endswith(".weight") and p.dim() == 2}
    sizes = torch.cat([p.detach().abs().flatten() for p in layers.values()])
    bound = sizes.kthvalue(max(1, round(sparsity * len(sizes)))).values
    masks = {name: p.detach().abs() > bound for name, p in layers.items()}
    holding(masks)(network)
    return masks


def holding(masks: dict[str, Tensor]) -> Callable[[nn.Module], None]:
    """What puts the zeros back after a step."""

    @torch.no_grad()
    def keep(network: nn.Module) -> None:
        weights = dict(network.named_parameters())
        for name, mask in masks.items():
            weights[name].mul_(mask.to(weights[name].device))

    return keep


def zeros(network: nn.Module) -> float:
    """The share of zeros among the weights that `prune` looks at."""
    found = [p.detach() for n, p in network.named_parameters() if ".layer." in n and n.endswith(".weight") and p.dim() == 2]
    return sum(int((p == 0).sum()) for p in found) / sum(p.numel() for p in found)


def _unwrapped(source: Path) -> net.IntentNetwork:
    network = net.load_merged(source)
    if isinstance(network.body, PeftModel):
        raise TrimtabError(
            f"{source} is a prefix in front of the base model: its own weights are not another's, so nothing is pruned"
        )
    network.requires_grad_(True)
    return network

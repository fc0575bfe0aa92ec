"""Writes MiniLM with room for any LoRA adapter: each linear layer computes `x W + x down up`, where down and up are inputs.

The base weights are int8, the adapter's float32. Batch, length, rank and number of classes are free.
"""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from serving_stack import network as net

# isort: split
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

_MOST_BATCH, _MOST_RANK, _MOST_CLASSES = 64, 256, 4096


class _Given:
    """The LoRA matrices of the run that goes on: they go by the side of the base model's own code, layer by layer."""

    downs: list[Tensor]
    ups: list[Tensor]


class _Layer(nn.Module):
    """A linear layer of the base, and the place of its matrices in what is given."""

    def __init__(self, base: nn.Linear, at: int, given: _Given) -> None:
        super().__init__()
        self.base, self.at = base, at
        object.__setattr__(self, "given", given)

    def forward(self, x: Tensor) -> Tensor:
        given: _Given = self.given  # type: ignore[assignment]
        changed: Tensor = self.base(x) + (x @ given.downs[self.at]) @ given.ups[self.at]
        return changed


class AdaptableNetwork(nn.Module):
    """Token ids and mask [batch, tokens], head [width, classes], bias [classes], and for each of `layers` down [in, rank] and
    up [rank, out] -> probabilities [batch, classes]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net._base()
        self.layers: list[tuple[str, int, int]] = []
        object.__setattr__(self, "given", _Given())
        for name, layer in list(self.body.named_modules()):
            if isinstance(layer, nn.Linear) and re.fullmatch(net.LINEAR_LAYERS, name):
                above, _, own = name.rpartition(".")
                changed = _Layer(layer, len(self.layers), self.given)  # type: ignore[arg-type]
                setattr(self.body.get_submodule(above), own, changed)
                self.layers.append((name, layer.in_features, layer.out_features))

    def forward(self, ids: Tensor, mask: Tensor, head: Tensor, bias: Tensor, downs: list[Tensor], ups: list[Tensor]) -> Tensor:
        given: _Given = self.given  # type: ignore[assignment]
        given.downs, given.ups = downs, ups
        hidden = self.body(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weight).sum(1) / weight.sum(1)
        return torch.softmax(pooled @ head + bias, dim=-1)


def write(network: Path, tokenizer: Path, tell: Callable[[str], None]) -> None:
    """Write the int8 network and the tokenizer."""
    tell("exporting MiniLM with its adapters as inputs")
    with tempfile.TemporaryDirectory(dir=network.parent) as folder:
        exact = Path(folder) / "float.onnx"
        _export(exact)
        onnx.checker.check_model(str(exact))
        tell("quantising its weights to int8")
        logging.disable(logging.WARNING)  # it recommends a preparation that changes nothing for this network
        try:
            quantize_dynamic(exact, network, weight_type=QuantType.QInt8, per_channel=True)  # inputs are no weights: they stay
        finally:
            logging.disable(logging.NOTSET)
    net.tokenizer().save(str(tokenizer))


def _export(to: Path) -> None:
    network, dim = AdaptableNetwork().eval(), torch.export.Dim
    batch, tokens = dim("batch", min=1, max=_MOST_BATCH), dim("tokens", min=2, max=net.MAX_TOKENS)
    rank, classes = dim("rank", min=1, max=_MOST_RANK), dim("classes", min=2, max=_MOST_CLASSES)
    downs = [torch.zeros(width, 16) for _, width, _ in network.layers]
    ups = [torch.zeros(16, out) for _, _, out in network.layers]
    ids, mask = torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)  # one tensor twice would be one input
    width = network.layers[0][1]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (ids, mask, torch.zeros(width, 77), torch.zeros(77), downs, ups),
            input_names=[
                *("ids", "mask", "head", "bias"),
                *(f"{name}.down" for name, _, _ in network.layers),
                *(f"{name}.up" for name, _, _ in network.layers),
            ],
            output_names=["probabilities"],
            dynamic_shapes=(
                {0: batch, 1: tokens}, {0: batch, 1: tokens}, {1: classes}, {0: classes},
                [{1: rank}] * len(downs), [{0: rank}] * len(ups),
            ),
            dynamo=True,
            verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    program.save(str(to), external_data=False)

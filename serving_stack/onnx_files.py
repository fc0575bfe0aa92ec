"""Writes the served network as ONNX: LoRA merged into the weights, softmax inside, batch and length dynamic."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

from serving_stack import network as net
from serving_stack.export import FLOAT, INT8, TOKENIZER

# isort: split
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn


class _Served(nn.Module):
    """Token ids and mask [batch, tokens] -> probabilities [batch, classes]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return torch.softmax(self.network(ids, mask), dim=-1)


def write(adapter: Path, folder: Path, tell: Callable[[str], None]) -> None:
    """Write `model.onnx` (float32), `model.int8.onnx` and `tokenizer.json` of an adapter folder into `folder`."""
    tell("merging the adapter into MiniLM")
    served = _Served(net.load_merged(adapter)).eval()
    example = (torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long))
    batch, tokens = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("tokens", min=2, max=net.MAX_TOKENS)
    tell("exporting to ONNX")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            served,
            example,
            input_names=["ids", "mask"],
            output_names=["probabilities"],
            dynamic_shapes=({0: batch, 1: tokens}, {0: batch, 1: tokens}),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    program.save(str(folder / FLOAT), external_data=False)
    onnx.checker.check_model(str(folder / FLOAT))
    tell("quantising to int8")
    logging.disable(logging.WARNING)  # it recommends a preparation that changes nothing for this network
    try:
        quantize_dynamic(folder / FLOAT, folder / INT8, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)
    net.tokenizer().save(str(folder / TOKENIZER))

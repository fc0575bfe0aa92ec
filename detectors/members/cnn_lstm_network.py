"""The network of `cnn_lstm` in torch, and its way to ONNX. Imported in training only."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from detectors.members.cnn_lstm import WINDOW

CHANNELS, HIDDEN = 16, 24


class _CnnLstm(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv1d(2 * width, CHANNELS, 3, padding=1)
        self.lstm = torch.nn.LSTM(CHANNELS, HIDDEN, batch_first=True)
        self.out = torch.nn.Linear(HIDDEN, width)

    def forward(self, window: Any) -> Any:
        hidden = torch.relu(self.convolution(window.transpose(1, 2))).transpose(1, 2)
        states, _ = self.lstm(hidden)
        return self.out(states[:, -1])


def build(width: int) -> Any:
    """An untrained network: windows [n, WINDOW, 2 * width] to forecasts [n, width]."""
    return _CnnLstm(width)


def to_onnx(network: Any, width: int) -> bytes:
    """The network as an ONNX model with input ``window`` and any number of rows."""
    sample = torch.zeros(2, WINDOW, 2 * width)
    rows = torch.export.Dim("rows")
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (sample,),
                dynamo=True,
                dynamic_shapes=({0: rows},),
                input_names=["window"],
                output_names=["next"],
                verbose=False,
            )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    assert program is not None  # torch says None for fake tensors only
    return bytes(program.model_proto.SerializeToString())

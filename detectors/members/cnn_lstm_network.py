"""The network of `cnn_lstm` in torch, how it learns, and its way to ONNX. Imported in training only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from detectors.members.base import Array
from detectors.members.cnn_lstm import INPUT_LIMIT, WINDOW

CHANNELS, HIDDEN, BATCH = 16, 24, 64


class CnnLstm(torch.nn.Module):
    """Windows [n, WINDOW, 2 * width] to forecasts [n, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.convolution = torch.nn.Conv1d(2 * width, CHANNELS, 3, padding=1)
        self.lstm = torch.nn.LSTM(CHANNELS, HIDDEN, batch_first=True)
        self.out = torch.nn.Linear(HIDDEN, width)

    def forward(self, window: Any) -> Any:
        hidden = torch.relu(self.convolution(window.transpose(1, 2))).transpose(1, 2)
        states, _ = self.lstm(hidden)
        return self.out(states[:, -1])

    def forecast(self, inputs: Array) -> Array:
        """Forecasts [n, width] of windows [n, WINDOW, 2 * width]."""
        with torch.no_grad():
            found: Array = self(torch.from_numpy(inputs.astype(np.float32))).numpy().astype(np.float64)
        return found


def learn(inputs: Array, targets: Array, steps: int, progress: Callable[[float], None] = lambda share: None) -> CnnLstm:
    """A network that forecasts `targets` [n, width] (NaN: unknown) from encoded windows [n, WINDOW, 2 * width]."""
    width = targets.shape[1]
    network = CnnLstm(width)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-3)
    x_all = torch.from_numpy(inputs.astype(np.float32))
    y_all = torch.from_numpy(np.clip(np.nan_to_num(targets), -INPUT_LIMIT, INPUT_LIMIT).astype(np.float32))
    k_all = torch.from_numpy(np.isfinite(targets).astype(np.float32))
    for step in range(steps):
        pick = torch.randint(len(x_all), (BATCH,))
        x, y, k = x_all[pick].clone(), y_all[pick], k_all[pick]
        swing, offset = 0.6 + 0.8 * torch.rand(BATCH, 1), torch.randn(BATCH, width) * 0.4
        seen = x[:, :, width:] * (torch.rand(BATCH, 1, width) > 0.1)
        x[:, :, :width] = (x[:, :, :width] * swing[:, None] + offset[:, None] + 0.2 * torch.randn(BATCH, WINDOW, width)) * seen
        x[:, :, width:] = seen
        wrong = torch.nn.functional.huber_loss(network(x), y * swing + offset, reduction="none")
        loss = (wrong * k).sum() / k.sum().clamp(min=1.0)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % 25 == 0:
            progress(step / steps)
    network.eval()
    return network


def to_onnx(network: CnnLstm) -> bytes:
    """The network as an ONNX model with input ``window`` and output ``next``, any number of rows.

    Written node by node: torch's exporter needs seconds to load and to trace what are five operators.
    """
    weights = {name: value.numpy() for name, value in network.state_dict().items()}

    def gates(name: str) -> Any:  # torch orders them input, forget, cell, output; ONNX input, output, forget, cell
        i, f, c, o = np.split(weights[name], 4)
        return np.concatenate([i, o, f, c])[None]

    constants = {
        "filter": weights["convolution.weight"],
        "filter_bias": weights["convolution.bias"],
        "w": gates("lstm.weight_ih_l0"),
        "r": gates("lstm.weight_hh_l0"),
        "b": np.concatenate([gates("lstm.bias_ih_l0"), gates("lstm.bias_hh_l0")], axis=1),
        "out": weights["out.weight"],
        "out_bias": weights["out.bias"],
        "direction": np.array([0]),
    }
    nodes = [
        helper.make_node("Transpose", ["window"], ["signals"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["signals", "filter", "filter_bias"], ["convolved"], pads=[1, 1]),
        helper.make_node("Relu", ["convolved"], ["hidden"]),
        helper.make_node("Transpose", ["hidden"], ["steps"], perm=[2, 0, 1]),
        helper.make_node("LSTM", ["steps", "w", "r", "b"], ["", "last"], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["last", "direction"], ["state"]),
        helper.make_node("Gemm", ["state", "out", "out_bias"], ["next"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn_lstm",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["rows", WINDOW, 2 * network.width])],
        [helper.make_tensor_value_info("next", TensorProto.FLOAT, ["rows", network.width])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())

"""CNN + LSTM forecaster: does this tick follow from the last ones?

A convolution over signals and 3 ticks, an LSTM over 12 ticks, and a linear layer forecast the next residuals. Statistic:
root mean square of the three largest forecast errors, each over its normal scale. Score: calibrated tail on normal ticks.
It sees changes of course (a jump, a drift's start) that lie inside the normal range of each signal; a state that lasts it
learns to expect, so diagnosis does not wait for it. Trained with torch, scored with onnxruntime: no torch here.
Memory: 40 kB of weights, 12 rows of residuals per replica; time: one run per tick for all replicas, 0.1 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from detectors.calibration import Calibration, Recalibration
from detectors.features import NAMES
from detectors.members.base import Array, Verdict, strongest
from detectors.observe import Observation

WINDOW = 12
WARM_UP = 6
MIN_KNOWN = 3
INPUT_LIMIT = 4.0  # beyond it a window is only "far off": what was never trained on should not steer the forecast


def encode(window: Array) -> Array:
    """The network's input [WINDOW, 2F] of residuals [w, F]: clipped values, then which of them are known. Padded in front."""
    known = np.isfinite(window)
    rows = np.concatenate([np.clip(np.where(known, window, 0.0), -INPUT_LIMIT, INPUT_LIMIT), known.astype(np.float64)], axis=1)
    padded = np.zeros((WINDOW, rows.shape[1]))
    padded[WINDOW - len(rows) :] = rows
    return padded


def statistic(errors: Array) -> Array:
    """Root mean square [n] of the three largest of |errors| [n, F]; unknown errors do not count."""
    top = -np.sort(-np.nan_to_num(np.abs(errors)), axis=1)[:, :3]
    found: Array = np.sqrt((top * top).mean(axis=1))
    return found


class CnnLstmMember:
    """The detector `cnn_lstm`."""

    name = "cnn_lstm"

    def __init__(self, network: bytes, scale: list[float], calibration: Calibration) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        self._scale, self._calibration = np.array(scale), Recalibration(calibration)
        self._windows: dict[str, list[list[float]]] = {}

    def score(self, seen: Observation) -> Verdict:
        """Scores per replica; NaN until a replica has given six ticks."""
        names = [h.target for h in seen.replicas]
        scores, errors = np.full(len(names), np.nan), np.full(seen.residuals.shape, np.nan)
        usable = [i for i in range(len(names)) if np.isfinite(seen.residuals[i]).sum() >= MIN_KNOWN]
        ready = [i for i in usable if len(self._windows.get(names[i], [])) >= WARM_UP]
        if ready:
            inputs = np.array([encode(np.array(self._windows[names[i]])) for i in ready], dtype=np.float32)
            forecast = self._session.run(None, {"window": inputs})[0].astype(np.float64)
            errors[ready] = (seen.residuals[ready] - forecast) / self._scale
            scores[ready] = self._calibration.score([names[i] for i in ready], statistic(errors[ready]))
        windows = {name: self._windows.get(name, []) for name in names}
        for i in usable:
            windows[names[i]] = [*windows[names[i]], seen.residuals[i].tolist()][-WINDOW:]
        self._windows = windows
        return Verdict(names, scores, [strongest(NAMES, row) for row in errors])

    def settle(self, suspects: set[str]) -> None:
        """See `LearnedDetector`."""
        self._calibration.settle(suspects)

    def dump(self) -> dict[str, Any]:
        """The state as plain values."""
        return {"windows": self._windows, "calibration": self._calibration.dump()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a dumped state."""
        self._windows = dict(state["windows"])
        self._calibration.restore(state["calibration"])


def fit(
    sequences: list[Array], progress: Callable[[float], None], seed: int = 0, steps: int = 300
) -> tuple[bytes, list[float], Calibration]:
    """Train on residual sequences [T, F]: the network as ONNX, the normal scale of each error [F], and the calibration.

    Augmentation, because a minute is short: noise, a constant offset of a window (another normal level), a wider or narrower
    swing, and unknown signals. Loss is Huber, so that the odd tick of the recording does not shape the forecast. Scale and
    calibration come from ticks that were not trained on: each half of the recording is forecast from the other half.
    """
    import torch

    from detectors.members.cnn_lstm_network import learn, to_onnx

    pairs = [(s[max(0, t - WINDOW) : t], s[t], 2 * t < len(s)) for s in sequences for t in range(WARM_UP, len(s))]
    inputs = np.array([encode(window) for window, _, _ in pairs])
    targets = np.array([target for _, target, _ in pairs], dtype=np.float64)
    first = np.array([early for _, _, early in pairs])
    errors = np.full(targets.shape, np.nan)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for done, mine in enumerate((first, ~first)):
                half = learn(inputs[mine], targets[mine], steps // 2)
                errors[~mine] = targets[~mine] - half.forecast(inputs[~mine])
                progress((done + 1) / 4)
            network = learn(inputs, targets, steps, lambda share: progress((1 + share) / 2))
            onnx = to_onnx(network)
    finally:
        torch.set_num_threads(before)
    known = np.isfinite(errors)
    scale = np.full(targets.shape[1], 1.0)
    seen = known.any(axis=0)
    scale[seen] = np.maximum(np.nanstd(errors[:, seen], axis=0), 0.5)
    progress(1.0)
    return onnx, scale.tolist(), Calibration.fit(statistic(errors / scale))

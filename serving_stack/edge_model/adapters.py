"""From an adapter's published files to what the base network takes as inputs. Runs inside Triton: numpy and safetensors only.

The base network has, for each linear layer `L`, the inputs `L.down` [in, rank] and `L.up` [rank, out], and `head`
[width, classes] and `bias` [classes]. A layer that the adapter leaves alone gets zeros.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import load

CONFIG, WEIGHTS, HEAD, INTENTS = "adapter_config.json", "adapter_model.safetensors", "head.safetensors", "intents.json"
FILES = (CONFIG, WEIGHTS, HEAD, INTENTS)
"""What an adapter is made of."""
MOST_RANK = 256
_UNKNOWN_HERE = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "trainable_token_indices",
)
"""What PEFT can do to a LoRA that the base network does not compute."""
_KEY = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.weight")

Shapes = Mapping[str, Sequence[int | str]]


class Unfit(ValueError):
    """The adapter is not one that this base network can serve; says why."""


@dataclass(frozen=True)
class Adapter:
    """An adapter that is ready to be run: inputs of the base network by name (float32), and its intents (UTF-8 bytes)."""

    inputs: dict[str, Any]
    intents: Any
    bytes: int


def check_file(name: str, content: bytes, sha256: str) -> None:
    """Raise `Unfit` when a file is not the published one."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Unfit(f"{name} is not the file that was published: its SHA-256 is another")


def read(files: Mapping[str, bytes], shapes: Shapes) -> Adapter:
    """The adapter in these files (`FILES` by name), for a base network with inputs of these `shapes`. Raises `Unfit`."""
    try:
        config, intents = json.loads(files[CONFIG]), json.loads(files[INTENTS])
        pairs = _pairs(load(files[WEIGHTS]))
        head = load(files[HEAD])
        weight, bias = head["weight"], head["bias"]
    except KeyError as error:
        raise Unfit(f"{error.args[0]} is missing") from None
    except Exception as error:  # safetensors has its own kind, JSON and UTF-8 theirs
        raise Unfit(f"it is not readable: {str(error)[:200]}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise Unfit(f"{CONFIG} is not that of a LoRA adapter")
    if odd := next((name for name in _UNKNOWN_HERE if config.get(name)), None) or _with_bias(config):
        raise Unfit(f"it uses {odd}, which the base network does not compute")
    if not isinstance(intents, list) or not intents or not all(isinstance(each, str) and each for each in intents):
        raise Unfit(f"{INTENTS} is no list of names")
    if not pairs:
        raise Unfit(f"{WEIGHTS} holds no LoRA matrix")
    with np.errstate(all="ignore"):  # what comes of wild values is looked at below
        inputs = _layers(pairs, config, shapes)
    width = int(shapes["head"][0])
    if weight.shape != (len(intents), width) or bias.shape != (len(intents),):
        said = f"{list(weight.shape)} and {list(bias.shape)}"
        raise Unfit(f"{HEAD} has the wrong shape: {said}, not [{len(intents)}, {width}] and [{len(intents)}]")
    inputs |= {"head": _float(weight.T), "bias": _float(bias)}
    if bad := next((name for name, value in inputs.items() if not np.isfinite(value).all()), None):
        raise Unfit(f"{bad} has values that are no numbers")
    names = np.array([each.encode() for each in intents], dtype=np.object_)
    return Adapter(inputs, names, sum(value.nbytes for value in inputs.values()))


def _pairs(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Layer -> its matrices `A` and `B`."""
    pairs: dict[str, dict[str, Any]] = {}
    for key, value in tensors.items():
        found = _KEY.fullmatch(key)
        if found is None:
            raise Unfit(f"{WEIGHTS} has {key!r}, which is no LoRA matrix")
        pairs.setdefault(found[1], {})[found[2]] = value
    return pairs


def _layers(pairs: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    layers = {name.removesuffix(".down"): int(shape[0]) for name, shape in shapes.items() if name.endswith(".down")}
    if strange := next((layer for layer in pairs if layer not in layers), None):
        raise Unfit(f"it changes {strange}, which the base network does not have")
    ranks = {}
    for layer, pair in pairs.items():
        down, up, out = pair.get("A"), pair.get("B"), int(shapes[f"{layer}.up"][1])
        if down is None or up is None or down.ndim != 2 or up.ndim != 2:
            raise Unfit(f"{layer} has not both of its matrices")
        ranks[layer] = down.shape[0]
        if down.shape[1] != layers[layer] or up.shape != (out, down.shape[0]) or not 0 < down.shape[0] <= MOST_RANK:
            said = f"{list(down.shape)} and {list(up.shape)}"
            raise Unfit(f"{layer} has the wrong shape: {said}, for a layer of {layers[layer]} to {out}")
    rank = max(ranks.values())
    inputs: dict[str, Any] = {}
    for layer, width in layers.items():
        down = np.zeros((width, rank), dtype=np.float32)
        up = np.zeros((rank, int(shapes[f"{layer}.up"][1])), dtype=np.float32)
        if layer in pairs:
            down[:, : ranks[layer]] = pairs[layer]["A"].T
            up[: ranks[layer]] = pairs[layer]["B"].T * np.float32(_scale(layer, ranks[layer], config))
        inputs |= {f"{layer}.down": down, f"{layer}.up": up}
    return inputs


def _scale(layer: str, rank: int, config: Mapping[str, Any]) -> float:
    """What PEFT multiplies the product of both matrices by."""
    alpha = _by_pattern(layer, config.get("alpha_pattern") or {}, config.get("lora_alpha"))
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise Unfit(f"{CONFIG} says no lora_alpha for {layer}")
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(layer: str, patterns: Mapping[str, Any], usual: Any) -> Any:
    return next((value for end, value in patterns.items() if re.fullmatch(rf"(.*\.)?({end})", layer)), usual)


def _with_bias(config: Mapping[str, Any]) -> str | None:
    return "bias" if config.get("bias", "none") != "none" else None


def _float(value: Any) -> Any:
    return np.ascontiguousarray(value, dtype=np.float32)

"""Whether a version has the shape that is served: what the network takes and gives, whether the adapter fits together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from serving_stack.adapters_content import BASE, SET, check_set
from serving_stack.export import INTENTS, TOKENIZER
from serving_stack.repository_formats import check_format, refuse_unsafe, tensors
from trimtab.errors import Missing, TrimtabError

INPUTS = {"ids": "tensor(int64)", "mask": "tensor(int64)"}
"""What the backend feeds, each [texts, tokens]; see `intent_model/model.py`."""
NETWORK, ADAPTER, ADAPTER_CONFIG, HEAD = "model.onnx", "adapter_model.safetensors", "adapter_config.json", "head.safetensors"


def check_contents(folder: Path, names: list[str]) -> None:
    """Check the formats of the named files of a version, then its shape. Raises `TrimtabError` in words.

    Needs the extra `serve`; a network of 23 MB takes a quarter of a second.
    """
    for name in names:
        refuse_unsafe(folder / name)
        check_format(folder / name)
    for name in names:
        if name.endswith(".onnx") and name not in (NETWORK, BASE if SET in names else None):
            _session(folder / name)
    if NETWORK in names:
        _check_network(folder)
    if ADAPTER in names:
        _check_adapter(folder)
    if SET in names:
        check_set(folder, _session(folder / BASE))


def _check_network(folder: Path) -> None:
    import numpy as np

    session = _session(folder / NETWORK)
    takes = {i.name: i.type for i in session.get_inputs()}
    if takes != INPUTS:
        raise TrimtabError(f"{NETWORK} has the wrong shape: it takes {_words(takes)}, the backend feeds {_words(INPUTS)}")
    for given in session.get_inputs():
        if len(given.shape) != 2 or any(isinstance(size, int) for size in given.shape):
            raise TrimtabError(
                f"{NETWORK} has the wrong shape: its input {given.name} is {given.shape}, not [texts, tokens] of any number"
            )
    classes = len(_intents(folder))
    ids = np.array([[0, 0, 0], [_tokens(folder) - 1, 0, 0]], dtype=np.int64)  # two texts, with the last token of the vocabulary
    try:
        given = session.run(None, {"ids": ids, "mask": np.ones_like(ids)})[0]
    except Exception as error:  # onnxruntime's own kinds derive from Exception alone
        raise TrimtabError(f"{NETWORK} has the wrong shape for {TOKENIZER}: {_first_line(error)}") from error
    if given.dtype != np.float32 or given.shape != (2, classes):
        got = f"{given.dtype} {list(given.shape)}"
        raise TrimtabError(f"{NETWORK} has the wrong shape: two texts give {got}, not float32 [2, {classes}] as {INTENTS} says")
    if not np.isfinite(given).all() or (given < -1e-6).any() or (abs(given.sum(1) - 1) > 1e-2).any():
        raise TrimtabError(f"{NETWORK} gives no probabilities: a row is not between 0 and 1 with the sum 1")


def _session(file: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise Missing(f"ONNX files are checked with the extra `serve`: pip install 'trimtab[serve]' ({error})") from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise TrimtabError(f"{file.name} is no whole ONNX model: {_first_line(error)}") from error


def _intents(folder: Path) -> list[str]:
    names = _json(folder / INTENTS)
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise TrimtabError(f"{INTENTS} is no list of names")
    if len(set(names)) != len(names):
        raise TrimtabError(f"{INTENTS} names an intent twice")
    return names


def _tokens(folder: Path) -> int:
    """How many token ids the tokenizer can give."""
    from tokenizers import Tokenizer

    if not (folder / TOKENIZER).is_file():
        raise Missing(f"{TOKENIZER} is missing beside {NETWORK}")
    try:
        return int(Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab_size())
    except Exception as error:  # the library raises Exception itself
        raise TrimtabError(f"{TOKENIZER} is no tokenizer: {_first_line(error)}") from error


def _check_adapter(folder: Path) -> None:
    """LoRA: both matrices of every pair, of one rank, that of the configuration. Head: as many rows as there are intents."""
    shapes = tensors(folder / ADAPTER)
    config = _json(folder / ADAPTER_CONFIG)
    if not isinstance(config, dict):
        raise TrimtabError(f"{ADAPTER_CONFIG} is no adapter's configuration")
    if config.get("peft_type") == "LORA":
        _check_lora(shapes, config)
    if (folder / HEAD).is_file() and (folder / INTENTS).is_file():
        rows = tensors(folder / HEAD).get("weight", (0,))[0]
        if rows != len(_intents(folder)):
            raise TrimtabError(f"{HEAD} has the wrong shape: {rows} classes, {INTENTS} names {len(_intents(folder))}")


def _check_lora(shapes: dict[str, tuple[int, ...]], config: dict[str, Any]) -> None:
    ranks = {config.get("r"), *(config.get("rank_pattern") or {}).values()}
    downs = {name: shape for name, shape in shapes.items() if ".lora_A." in name}
    if not downs:
        raise TrimtabError(f"{ADAPTER} has the wrong shape: no LoRA matrix is in it")
    for name, down in downs.items():
        up = shapes.get(name.replace(".lora_A.", ".lora_B."))
        if len(down) != 2 or up is None or len(up) != 2 or up[1] != down[0] or down[0] not in ranks:
            said = f"{list(down)} and {list(up) if up else 'nothing'}, rank {config.get('r')}"
            raise TrimtabError(f"{ADAPTER} has the wrong shape: the matrices of {name} are {said}")


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Missing(f"{file.name} is missing") from None
    except ValueError as error:
        raise TrimtabError(f"{file.name} is not JSON: {error}") from None


def _words(tensors: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in sorted(tensors.items())) or "nothing"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

"""What a request costs when adapters are inputs of one network, beside other ways to serve many tasks. One thread."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.frame import Cell, Options
from serving_stack import banking
from serving_stack.adapters_base import ensure_base
from serving_stack.adapters_content import BASE, shapes_of
from serving_stack.edge_model.adapters import CONFIG, FILES, HEAD, INTENTS, WEIGHTS, Adapter, read
from serving_stack.export import ADAPTERS, INT8, TOKENIZER, default_cache, ensure_exported

SHIPPED = 2
TOKENS = 16
"""Of a usual question."""
TASKS = 16
Way = Callable[[Any, Any], Any]
"""Token ids and mask [texts, tokens] -> probabilities."""
Outcome = tuple[list[dict[str, Cell]], dict[str, float | None]]


@dataclass(frozen=True)
class Sizes:
    """Bytes: of the base network, of an adapter's files, of an adapter in memory, and of a whole int8 model."""

    base: int
    adapter: int
    adapter_in_memory: int
    model: int


def files() -> dict[str, bytes]:
    """The shipped adapter as it would be published."""
    folder = ADAPTERS / str(SHIPPED)
    return {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS, HEAD)} | {
        INTENTS: json.dumps(banking.intents()).encode()
    }


@cache
def sizes() -> Sizes:
    """Measured on the files of this installation."""
    base, model = ensure_base() / BASE, ensure_exported(SHIPPED, default_cache()) / INT8
    content = files()
    in_memory = read(content, shapes_of(_session(base))).bytes
    return Sizes(base.stat().st_size, sum(len(content[name]) for name in FILES), in_memory, model.stat().st_size)


def measure(options: Options) -> Outcome:
    """Milliseconds of a run with one text, with 16 of one task and with 16 of 16 tasks; of loading; the accuracy."""
    repeats = 5 if options.quick else 60
    base, content = _session(ensure_base() / BASE), files()
    adapter = read(content, shapes_of(base))
    exported = ensure_exported(SHIPPED, default_cache())
    merged = _session(exported / INT8)
    ways: dict[str, Way] = {
        "": lambda ids, mask: base.run(None, {"ids": ids, "mask": mask, **adapter.inputs})[0],
        "lora_adapter_": _lora_adapter(adapter),
        "peft_": _peft(),
        "merged_": lambda ids, mask: merged.run(None, {"ids": ids, "mask": mask})[0],
    }
    rows: list[dict[str, Cell]] = []
    figures: dict[str, float | None] = {}
    one, many = _texts(1), _texts(TASKS)
    shapes: dict[str, Callable[[Way], Any]] = {
        "batch1_ms": lambda way: way(*one),
        "same16_ms": lambda way: way(*many),
        "mixed16_ms": lambda way: _apart(way, *many),
    }
    for name, work in shapes.items():
        timed = _milliseconds({key: partial(work, way) for key, way in ways.items()}, repeats)
        figures |= {f"{key}{name}": value for key, value in timed.items()}
        rows += [_row(f"network, {name.removesuffix('_ms')}", WORDS[key], value) for key, value in timed.items()]
        options.say(f"{name}: {timed}")
    loads = {"load": lambda: read(files(), shapes_of(base)), "model": lambda: _session(exported / INT8)}
    load, model_load = _milliseconds(loads, max(5, repeats // 6)).values()
    figures |= {"load_ms": load, "model_load_ms": model_load}
    rows += [_row("load", "an adapter's files to inputs", load), _row("load", "a whole model's session", model_load)]
    asked = banking.hold_out(banking.questions("train"), 0.1, 7)[1][: 200 if options.quick else None]
    for key in ("", "merged_"):
        right = _right(ways[key], asked)
        figures[f"{key}validation_accuracy"] = right
        rows.append(_row(f"accuracy on {len(asked)} held-out questions: {right:.2%}", WORDS[key], None))
    return rows, figures


WORDS = {
    "": "adapters as inputs, int8 base (served)",
    "lora_adapter_": "onnxruntime's LoraAdapter, int8 base",
    "peft_": "PEFT in torch, float32",
    "merged_": "a merged int8 model per task",
}


def _lora_adapter(adapter: Adapter) -> Way:
    """The same network with zeros as the default of every adapter input, as LoraAdapter needs it, and an adapter."""
    import onnx
    import onnxruntime

    model = onnx.load(ensure_base() / BASE)
    defaults = {name: onnx.numpy_helper.from_array(np.zeros_like(value), name) for name, value in adapter.inputs.items()}
    model.graph.initializer.extend(defaults.values())
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / "defaults.onnx")
        session = _session(Path(folder) / "defaults.onnx")
        written = onnxruntime.AdapterFormat()
        written.set_adapter_version(1)
        written.set_model_version(1)
        written.set_parameters({n: onnxruntime.OrtValue.ortvalue_from_numpy(value) for n, value in adapter.inputs.items()})
        written.export_adapter(str(Path(folder) / "a.onnx_adapter"))
        loaded = onnxruntime.LoraAdapter()
        loaded.Load(str(Path(folder) / "a.onnx_adapter"))
    options = onnxruntime.RunOptions()
    options.add_active_adapter(loaded)

    def run(ids: Any, mask: Any, adapter: Any = loaded) -> Any:  # the options hold no reference to it
        return session.run(None, {"ids": ids, "mask": mask}, options)[0]

    return run


def _peft() -> Way:
    """PEFT's own way: two adapters in one network, changed by name before each run."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    from serving_stack import network

    folder = ADAPTERS / str(SHIPPED)
    body = PeftModel.from_pretrained(network._base(), folder, adapter_name="one", torch_dtype=torch.float32)
    body.load_adapter(folder, adapter_name="two", torch_dtype=torch.float32)
    head = load_file(folder / HEAD)
    net = network.IntentNetwork(body, classes=head["weight"].shape[0]).eval()
    net.head.load_state_dict({name: weight.float() for name, weight in head.items()})
    names = ["one", "two"]
    torch.set_num_threads(1)

    def run(ids: Any, mask: Any) -> Any:
        names.reverse()
        body.set_adapter(names[0])
        with torch.inference_mode():
            return torch.softmax(net(torch.from_numpy(ids), torch.from_numpy(mask)), -1).numpy()

    return run


def _apart(way: Way, ids: Any, mask: Any) -> None:
    """Each text is of another task, so it is a run of its own."""
    for at in range(len(ids)):
        way(ids[at : at + 1], mask[at : at + 1])


def _texts(count: int) -> tuple[Any, Any]:
    ids = np.random.default_rng(1).integers(1000, 20000, (count, TOKENS))
    return ids, np.ones_like(ids)


def _right(way: Way, asked: list[banking.Question]) -> float:
    from tokenizers import Tokenizer

    tokenizer, names = Tokenizer.from_file(str(ensure_base() / TOKENIZER)), banking.intents()
    tokenizer.enable_padding(pad_id=0)
    right, ordered = 0, sorted(asked, key=lambda each: len(each.text))
    for start in range(0, len(ordered), 32):
        part = ordered[start : start + 32]
        encoded = tokenizer.encode_batch([each.text for each in part])
        ids, mask = (np.array([getattr(each, name) for each in encoded], dtype=np.int64) for name in ("ids", "attention_mask"))
        right += sum(names[best] == each.intent for best, each in zip(way(ids, mask).argmax(1), part, strict=True))
    return right / len(ordered)


def _milliseconds(works: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The median of each, after a run that does not count; in turn, so that a busy machine is as busy for all of them."""
    took: dict[str, list[float]] = {key: [] for key in works}
    for _ in range(1 + repeats):
        for key, work in works.items():
            began = time.perf_counter()
            work()
            took[key].append(time.perf_counter() - began)
    return {key: round(statistics.median(each[1:]) * 1000, 3) for key, each in took.items()}


def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # defaults that are inputs are no news
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _row(what: str, by: str, milliseconds: float | None) -> dict[str, Cell]:
    return {"what": what, "by": by, "hit_ratio": None, "moved": None, "prefetched": None, "ms": milliseconds, "ms_p99": None}

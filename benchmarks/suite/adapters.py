"""Adapters at the edge: what the cache's policy is worth, what moves, and what swapping adapters costs the network.

Policies are played over requests for 500 adapters: the served one beside LRU, LFU, W-TinyLFU and Belady's clairvoyant bound, in
three workloads (`benchmarks/adapters/workloads.py`) with room for 5, 10 and 20 % of the adapters. Then the real network: adapters
as inputs, beside onnxruntime's own LoraAdapter, PEFT in torch, and a merged model per task; and a real Triton under drift.

Figures (room for 10 %, all three workloads together): `hit_ratio`, `lru_hit_ratio`, `lfu_hit_ratio`, `tinylfu_hit_ratio`,
`belady_hit_ratio`, and each with `zipf_`, `drift_`, `trace_` before; `bytes_ratio`: bytes moved with adapters, by bytes moved
with whole models in the same memory; `adapter_bytes`, `model_bytes`; `load_ms`, `model_load_ms`; `batch1_ms`, `same16_ms` and
`mixed16_ms`, also with `merged_`, `lora_adapter_`, `peft_` before; `validation_accuracy`, `merged_validation_accuracy`; on Triton
`served_hit_ratio`, `served_simulated_hit_ratio`, `served_hit_p50_ms` (`p99`), `served_miss_p50_ms` (`p99`), `served_load_ms`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from benchmarks.adapters import compute, served
from benchmarks.adapters.play import Played, clairvoyant, play
from benchmarks.adapters.policies import Lfu, Lru, Policy
from benchmarks.adapters.tiny_lfu import TinyLfu
from benchmarks.adapters.workloads import ADAPTERS, WORKLOADS
from benchmarks.frame import Cell, Options, Result
from serving_stack.edge_model.trend import Trend

POLICIES: dict[str, Callable[[int], Policy]] = {"": Trend, "lru_": Lru, "lfu_": Lfu, "tinylfu_": TinyLfu}
SHARES, HEADLINE = (0.05, 0.1, 0.2), 0.1
SEED = 1
NOTES = (
    "simulated rows: adapters of one size, counted from an empty cache on; moved: adapters fetched, also before time",
    "belady: knows the future and may refuse; no policy can have more hits",
    "whole models: the served policy with as many int8 models as fit where the base network and the adapters lie",
)


def run(options: Options) -> Result:
    """100,000 requests per workload; quick: 6,000, room for 10 % only, and a short look at network and Triton."""
    count = 6_000 if options.quick else 100_000
    rows: list[dict[str, Cell]] = []
    figures: dict[str, float | None] = {}
    files = compute.sizes()
    hits: Counter[str] = Counter()
    requests = moved = whole_moved = 0
    for name, workload in WORKLOADS.items():
        asked = workload(count, SEED)
        for share in (HEADLINE,) if options.quick else SHARES:
            places = round(share * ADAPTERS)
            found = {key: play(kind(places), asked) for key, kind in POLICIES.items()} | {"belady_": clairvoyant(asked, places)}
            rows += [_row(name, share, key, each) for key, each in found.items()]
            if share == HEADLINE:
                whole = play(Trend(_models(places, files)), asked)
                rows.append(_row(name, share, "whole models", whole))
                figures |= {f"{name}_{key}hit_ratio": each.hit_ratio for key, each in found.items()}
                hits.update({key: round(each.hit_ratio * len(asked)) for key, each in found.items()})
                requests, moved, whole_moved = requests + len(asked), moved + found[""].moved, whole_moved + whole.moved
        options.say(f"{name}: {len(asked)} requests played")
    figures |= {f"{key}hit_ratio": each / requests for key, each in hits.items()}
    figures["bytes_ratio"] = moved * files.adapter / (whole_moved * files.model)
    figures |= {"adapter_bytes": float(files.adapter), "model_bytes": float(files.model)}
    found_rows, measured = compute.measure(options)
    more_rows, seen = served.measure(options)
    return Result([*rows, *found_rows, *more_rows], {**figures, **measured, **seen}, NOTES)


def _models(places: int, files: compute.Sizes) -> int:
    """How many whole models fit in the memory that the base network and so many adapters take."""
    return (files.base + places * files.adapter_in_memory) // files.model


def _row(workload: str, share: float, key: str, found: Played) -> dict[str, Cell]:
    return {
        "what": f"{workload}, room for {share:.0%}",
        "by": key.rstrip("_") or "trend (served)",
        "hit_ratio": round(found.hit_ratio, 4),
        "moved": found.moved,
        "prefetched": found.prefetched,
        "ms": None,
        "ms_p99": None,
    }

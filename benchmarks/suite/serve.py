"""Throughput of the served model through Envoy and Triton: batching against none, int8 against float32 against torch eager.

One adapter served in each way, one after the other, on BANKING77's test questions in a seeded order. Clients send the next
question when the last one is answered; of several numbers of clients the one with the most answers counts, among those with p99
within 250 ms. Load generator, Envoy and Triton share the machine's cores.

Figures: `requests_per_second` (the best of all), `batching_speedup` (the best batched int8 kind against the best that is not),
`one_instance_batching_speedup`, `fp32_batching_speedup`, `torch_batching_speedup`, `grouping_speedup` (texts grouped by length
against padded to the longest of the batch), `int8_vs_fp32`, `int8_vs_torch`, `instances_speedup`, `cold_start_seconds`;
`<kind>_rps` of each row; and the same ratios of processor time per request under most clients, `cpu_...`, which other work on the
machine hardly changes.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.frame import Cell, Options, Result
from benchmarks.serve import cold
from benchmarks.serve.load import Measured, measure
from benchmarks.serve.stage import MODEL, Kind, Running, started, stores
from serving_stack.export import shipped
from serving_stack.traffic.questions import banking77

SLO_SECONDS = 0.25
KINDS = (
    Kind("int8", "int8"),
    Kind("int8_unbatched", "int8", batching=False),
    Kind("int8_ungrouped", "int8", grouped=False),
    Kind("int8_2_instances", "int8", instances=2),
    Kind("int8_2_instances_unbatched", "int8", batching=False, instances=2),
    Kind("int8_2_threads", "int8", threads=2),
    Kind("fp32", "fp32"),
    Kind("fp32_unbatched", "fp32", batching=False),
    Kind("torch", "torch"),
    Kind("torch_unbatched", "torch", batching=False),
)
QUICK = ("int8", "int8_unbatched", "fp32", "torch")


def run(options: Options) -> Result:
    """Quick: four of the ten kinds, two numbers of clients, a second each, and no cold start."""
    kinds = [kind for kind in KINDS if not options.quick or kind.name in QUICK]
    clients, seconds, settle = ((4, 32), 1.0, 0.4) if options.quick else ((1, 4, 16, 32, 64), 5.0, 1.0)
    bodies = [question.body for question in banking77(seed=1)]
    adapter = shipped()[-1]
    rows: list[dict[str, Cell]] = []
    rates: dict[str, float | None] = {}
    work: dict[str, float | None] = {}  # processor time that a request costs under most clients
    with tempfile.TemporaryDirectory(prefix="trimtab-serve-") as name:
        where = stores(adapter, Path(name))
        for kind in kinds:
            with started(kind, where[kind.weights], adapter) as running:
                found = [_level(running, bodies, count, seconds, settle) for count in clients]
            best = max((each for each in found if _within(each[0])), key=lambda each: each[0].per_second, default=None)
            rows.append(_row(kind, best, found))
            rates[kind.name] = best[0].per_second if best else None
            work[kind.name] = _cpu_ms(found[-1])
            options.say(f"{kind.name}: {rows[-1]['rps']} requests/s, {rows[-1]['cpu_ms']} ms of processor time each")
        start = None if options.quick else cold.measure(adapter, Path(name), bodies[0])
    known = [rate for rate in rates.values() if rate is not None]
    best_of = {"batched": _most(rates, kinds, batching=True), "unbatched": _most(rates, kinds, batching=False)}
    figures: dict[str, float | None] = {
        "requests_per_second": max(known, default=None),
        "batching_speedup": _ratio(best_of, "batched", "unbatched"),
        "one_instance_batching_speedup": _ratio(rates, "int8", "int8_unbatched"),
        "fp32_batching_speedup": _ratio(rates, "fp32", "fp32_unbatched"),
        "torch_batching_speedup": _ratio(rates, "torch", "torch_unbatched"),
        "grouping_speedup": _ratio(rates, "int8", "int8_ungrouped"),
        "instances_speedup": _ratio(rates, "int8_2_instances", "int8"),
        "int8_vs_fp32": _ratio(rates, "int8", "fp32"),
        "int8_vs_torch": _ratio(rates, "int8", "torch"),
        "cpu_batching_speedup": _ratio(work, "int8_unbatched", "int8"),
        "cpu_grouping_speedup": _ratio(work, "int8_ungrouped", "int8"),
        "cpu_int8_vs_fp32": _ratio(work, "fp32", "int8"),
        "cpu_int8_vs_torch": _ratio(work, "torch", "int8"),
        "cold_start_seconds": sum(start) if start else None,
        "cold_add_seconds": start[0] if start else None,
    }
    return Result(
        rows,
        figures | {f"{kind}_rps": rate for kind, rate in rates.items()},
        [
            f"adapter {adapter}; p99 at the most {SLO_SECONDS * 1000:.0f} ms; clients tried: {', '.join(map(str, clients))}",
            "padding: share of the computed tokens that are none; batch: requests per execution",
            "alone_ms: p50 with the fewest clients",
            "cpu_ms: processor time of Triton and Envoy per request, under most clients",
            "cold start: models add (already exported), start of Triton and Envoy, first good answer through both",
        ],
    )


_COMPUTED = "trimtab_model_padded_tokens_total"
Level = tuple[Measured, dict[str, float]]


def _level(running: Running, bodies: list[bytes], clients: int, seconds: float, settle: float) -> Level:
    """What the clients saw, and how much the counters of Triton's page grew meanwhile (settling included)."""
    before, cpu = running.counters(), running.cpu_seconds()
    seen = measure(running.gateway, f"/v2/models/{MODEL}/infer", bodies, clients, seconds, settle)
    grown = {name: value - before.get(name, 0.0) for name, value in running.counters().items()}
    return seen, grown | {"cpu_seconds": running.cpu_seconds() - cpu}


def _within(seen: Measured) -> bool:
    return set(seen.statuses) == {200} and seen.quantile(0.99) <= SLO_SECONDS


def _row(kind: Kind, best: Level | None, found: list[Level]) -> dict[str, Cell]:
    seen, grown = best or found[0]
    computed, executions, requests = (
        grown.get(name, 0.0) for name in (_COMPUTED, "nv_inference_exec_count", "nv_inference_count")
    )
    return {
        "kind": kind.name,
        "clients": seen.clients,
        "rps": round(seen.per_second, 1) if best else None,
        "p50_ms": round(seen.quantile(0.5) * 1000, 1),
        "p99_ms": round(seen.quantile(0.99) * 1000, 1),
        "alone_ms": round(found[0][0].quantile(0.5) * 1000, 2),
        "batch": round(requests / executions, 1) if executions else None,
        "padding": round(1 - grown.get("trimtab_model_tokens_sum", 0.0) / computed, 3) if computed else None,
        "cpu_ms": None if (cpu := _cpu_ms(found[-1])) is None else round(cpu, 3),
        "failed": sum(count for each, _ in found for status, count in each.statuses.items() if status != 200),
    }


def _cpu_ms(level: Level) -> float | None:
    requests = level[1].get("nv_inference_count", 0.0)
    return level[1]["cpu_seconds"] * 1000 / requests if requests else None


def _most(rates: dict[str, float | None], kinds: Sequence[Kind], batching: bool) -> float | None:
    """Requests/s of the best int8 kind that batches, or that does not."""
    found = [rates[kind.name] for kind in kinds if kind.weights == "int8" and kind.batching == batching]
    return max((rate for rate in found if rate is not None), default=None)


def _ratio(rates: dict[str, float | None], one: str, other: str) -> float | None:
    above, below = rates.get(one), rates.get(other)
    return above / below if above is not None and below is not None and not math.isclose(below, 0) else None

"""What a replica of an adapter set says about itself on Triton's metrics page. Runs inside Triton: standard library only.

Each change of a series there is a message to another process, so it is counted here and brought to the page now and then.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

NAMED = 20
"""Adapters that have a series of their own: the most popular now. All others share the label `other`."""
OTHER = "other"
LOAD_SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
PAGE = os.sysconf("SC_PAGE_SIZE")

COUNTERS = {
    "adapters_requests_total": "Requests by what became of the look for their adapter.",
    "adapters_moved_bytes_total": "Bytes of adapters' files that were fetched.",
    "adapters_loads_total": "Adapters that were fetched and read.",
    "adapters_load_failures_total": "Adapters that could not be fetched or read.",
    "adapters_evictions_total": "Adapters that left the memory for another one.",
    "adapters_refusals_total": "Fetched adapters that were not worth a place in memory.",
    "adapter_answers_total": "Answers of an adapter.",
    "adapter_confidence_sum": "Sum of the confidence of an adapter's answers.",
    "model_refused_total": "Requests answered with an error because of their text.",
    "model_confidence_sum": "Sum of the confidence of all answers.",
    "model_confidence_count": "Answers that have a confidence.",
}
GAUGES = {
    "adapters_held": "Adapters in memory.",
    "adapters_held_bytes": "Bytes of the adapters in memory.",
    "adapters_limit_bytes": "Bytes that adapters may have in memory.",
    "adapter_request_ratio": "Share of the requests that an adapter has lately; of the most popular.",
    "model_resident_memory_bytes": "Resident memory of the model's process.",
}
Series = tuple[str, tuple[tuple[str, str], ...]]
"""Name and labels, without those that all series have."""


class Measures:
    """`family` is Triton's `MetricFamily`, `labels` those of every series. May be called from several threads."""

    def __init__(self, family: Any, labels: dict[str, str]) -> None:
        self._labels, self._lock = labels, threading.Lock()
        self._families = {n: family(name=f"trimtab_{n}", description=d, kind=family.COUNTER) for n, d in COUNTERS.items()}
        self._families |= {n: family(name=f"trimtab_{n}", description=d, kind=family.GAUGE) for n, d in GAUGES.items()}
        self._loads = family(
            name="trimtab_adapters_load_seconds", description="Seconds to fetch and read an adapter.", kind=family.HISTOGRAM
        )
        self._load_seconds = self._loads.Metric(labels=labels, buckets=LOAD_SECONDS)
        self._series: dict[Series, Any] = {}
        self._grown: Counter[Series] = Counter()
        self._named: tuple[str, ...] = ()
        for series in _from_the_start():
            self._metric(series)

    def asked(self, result: str, count: int) -> None:
        """`count` requests came whose adapter was held (hit), not (miss), not known, or too many waited for it (overload)."""
        self._count("adapters_requests_total", count, result=result)

    def answered(self, adapter: str, confidence: float, count: int) -> None:
        """So many answers, with this sum of confidences."""
        name = adapter if adapter in self._named else OTHER
        self._count("model_confidence_sum", confidence)
        self._count("model_confidence_count", count)
        self._count("adapter_confidence_sum", confidence, adapter=name)
        self._count("adapter_answers_total", count, adapter=name)

    def text_refused(self, reason: str) -> None:
        """A request that was answered with words instead of a label."""
        self._count("model_refused_total", 1, reason=reason)

    def loaded(self, why: str, size: int, seconds: float) -> None:
        """See `shelf.Observer`."""
        self._count("adapters_loads_total", 1, why=why)
        self._count("adapters_moved_bytes_total", size, why=why)
        self._load_seconds.observe(seconds)

    def evicted(self, count: int) -> None:
        """See `shelf.Observer`."""
        self._count("adapters_evictions_total", count)

    def refused(self) -> None:
        """See `shelf.Observer`."""
        self._count("adapters_refusals_total", 1)

    def failed(self, why: str) -> None:
        """See `shelf.Observer`."""
        self._count("adapters_load_failures_total", 1, why=why)

    def bring(self, held: int, size: int, limit: int, shares: list[tuple[str, float]]) -> None:
        """Bring to the page what was counted, what is held now, and the share of requests of the most popular adapters.

        `shares` has every adapter, the most popular first. Called by one thread.
        """
        named = {name: share for name, share in shares[:NAMED] if share > 0}
        with self._lock:
            grown, self._grown = self._grown, Counter()
            self._named = tuple(named)
        for series, value in grown.items():
            self._metric(series).increment(value)
        gauges = {"adapters_held": held, "adapters_held_bytes": size, "adapters_limit_bytes": limit}
        for name, value in (gauges | {"model_resident_memory_bytes": resident_bytes()}).items():
            self._metric((name, ())).set(value)
        for name, share in named.items():
            self._metric(("adapter_request_ratio", (("adapter", name),))).set(share)
        for series in [each for each in self._series if _adapter_of(each) not in (None, OTHER, *named)]:
            del self._series[series]  # takes it off the page

    def _count(self, name: str, value: float, **labels: str) -> None:
        with self._lock:
            self._grown[(name, tuple(labels.items()))] += value  # type: ignore[assignment]

    def _metric(self, series: Series) -> Any:
        found = self._series.get(series)
        if found is None:
            name, labels = series
            found = self._series[series] = self._families[name].Metric(labels=self._labels | dict(labels))
        return found


def _from_the_start() -> list[Series]:
    """Series that are there before anything is counted: the first count is then seen as growth."""
    series: list[Series] = [("adapters_requests_total", (("result", each),)) for each in ("hit", "miss", "unknown", "overload")]
    for name in ("adapters_moved_bytes_total", "adapters_loads_total", "adapters_load_failures_total"):
        series += [(name, (("why", each),)) for each in ("miss", "prefetch")]
    plain = ("adapters_evictions_total", "adapters_refusals_total", "model_confidence_sum", "model_confidence_count")
    return series + [(name, ()) for name in plain]


def _adapter_of(series: Series) -> str | None:
    return dict(series[1]).get("adapter")


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

"""The model's own series on Triton's metrics page. Runs inside Triton's Python process.

Instances of the model in one server share their series: what each adds is added up, also the gauge of their memory.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from quality import CONFIDENCE, OTHER, TOKENS, Quality, Series  # type: ignore[import-not-found]
from texts import REASONS  # type: ignore[import-not-found]

EVERY_SECONDS = 0.25
PAGE = os.sysconf("SC_PAGE_SIZE")
ABOUT = {
    "trimtab_model_resident_memory_bytes": "Resident memory of the model's processes.",
    "trimtab_model_confidence_sum": "Sum of the confidence of all answers.",
    "trimtab_model_confidence_count": "Answers that have a confidence.",
    "trimtab_model_confidence_bucket": "Answers with a confidence up to `le`.",
    "trimtab_model_tokens_sum": "Tokens of the answered texts.",
    "trimtab_model_tokens_count": "Answered texts.",
    "trimtab_model_tokens_bucket": "Answered texts with up to `le` tokens.",
    "trimtab_model_answers_total": "Answers by class: the most frequent ones, and all others together.",
    "trimtab_model_refused_total": "Requests answered with an error because of their text.",
    "trimtab_model_truncated_total": "Texts of which only the beginning was read.",
    "trimtab_model_runs_total": "Runs of the network.",
    "trimtab_model_padded_tokens_total": "Tokens that were computed, padding included.",
}


class MetricsPage:
    """The series of one model version. `start` a thread that brings `quality` and memory to the page."""

    def __init__(self, labels: dict[str, str], quality: Quality) -> None:
        self._labels = labels
        self._quality = quality
        self._families = {name: _family(name) for name in ABOUT}  # a family that is collected takes its series off the page
        self._metrics: dict[Series, Any] = {}
        self._memory = 0
        for series in _from_the_start():
            self._metric(series)

    def confidence(self, total: float, answers: int) -> None:
        """At once, so that a page never shows one of the two without the other for longer than a moment."""
        self._metric(("trimtab_model_confidence_sum", ())).increment(total)
        self._metric(("trimtab_model_confidence_count", ())).increment(answers)

    def bring(self) -> None:
        """What was counted since the last time, and the memory."""
        memory = resident_bytes()
        if memory != self._memory:
            self._metric(("trimtab_model_resident_memory_bytes", ())).increment(memory - self._memory)
            self._memory = memory
        grown, ended = self._quality.take()
        for series, value in grown.items():
            self._metric(series).increment(value)
        for series in ended:
            self._metrics.pop(series, None)

    def start(self) -> None:
        """Bring it all a few times a second, as long as the process lives."""
        self.bring()

        def work() -> None:
            while True:
                time.sleep(EVERY_SECONDS)
                self.bring()

        threading.Thread(target=work, daemon=True, name="metrics-page").start()

    def _metric(self, series: Series) -> Any:
        found = self._metrics.get(series)
        if found is None:
            name, labels = series
            found = self._metrics[series] = self._families[name].Metric(labels=self._labels | dict(labels))
        return found


def _family(name: str) -> Any:
    kind = pb_utils.MetricFamily.GAUGE if name.endswith("_bytes") else pb_utils.MetricFamily.COUNTER
    return pb_utils.MetricFamily(name=name, description=ABOUT[name], kind=kind)


def _from_the_start() -> list[Series]:
    """Series that are there before anything is counted: the first count is then seen as growth."""
    plain = ("tokens_sum", "tokens_count", "truncated_total", "runs_total", "padded_tokens_total", "confidence_sum")
    series: list[Series] = [(f"trimtab_model_{name}", ()) for name in (*plain, "confidence_count", "resident_memory_bytes")]
    for name, bounds in (("confidence", CONFIDENCE), ("tokens", TOKENS)):
        series += [(f"trimtab_model_{name}_bucket", (("le", le),)) for le in (*(f"{bound:g}" for bound in bounds), "+Inf")]
    series += [("trimtab_model_refused_total", (("reason", reason),)) for reason in REASONS]
    return [*series, ("trimtab_model_answers_total", (("class", OTHER),))]


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

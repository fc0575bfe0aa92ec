"""Recorded demand: arrivals one by one, or a curve of rates. What ships with Trimtab, by name."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Trace = Literal[
    "azure-conv",
    "servegen-m-large",
    "servegen-m-mid",
    "servegen-m-small",
    "servegen-deepseek-r1",
    "servegen-mm-image",
    "vllm-sweep-100",
    "vllm-sweep-200",
    "vllm-sweep-300",
    "vllm-sweep-400",
    "vllm-sweep-500",
    "vllm-sweep-600",
    "vllm-sweep-700",
    "vllm-sweep-800",
    "vllm-sweep-900",
    "vllm-sweep-1000",
    "vllm-sweep-1500",
    "vllm-sweep-2000",
]


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Requests as they came: `gaps` are the seconds between them, none negative and not all zero."""

    gaps: Floats

    @property
    def seconds(self) -> float:
        """How long the recording lasts."""
        return float(self.gaps.sum())

    @property
    def mean_rate(self) -> float:
        """Requests per second over all of it."""
        return float(1.0 / self.gaps.mean())


@dataclass(frozen=True, eq=False)
class Rates:
    """Requests per second in consecutive steps of `step` seconds; the arrivals within a step were not recorded."""

    step: float
    rates: Floats

    @property
    def seconds(self) -> float:
        """How long the recording lasts."""
        return self.step * self.rates.size

    @property
    def mean_rate(self) -> float:
        """Requests per second over all of it."""
        return float(self.rates.mean())


Recording = Arrivals | Rates


def is_curve(trace: Trace) -> bool:
    """Whether a shipped trace is a curve of rates, not arrivals one by one."""
    return trace.startswith("servegen-")


@cache
def shipped(trace: Trace) -> Recording:
    """A trace that ships with Trimtab; `serving_stack/traces/SOURCE.txt` says where each is from."""
    family, _, column = trace.partition("-")
    if family == "azure":
        return Arrivals(np.diff(np.array(_read("azure_conv.txt.gz").split(), dtype=np.float64)))
    if family == "servegen":
        table = _columns("servegen.csv.gz")
        rates = table[column]
        return Rates(step=float(table["t_s"][1]), rates=rates[~np.isnan(rates)])
    return Arrivals(np.diff(_columns("vllm_sweep.csv.gz")[column.replace("sweep-", "scale")]))


def _read(name: str) -> str:
    return gzip.decompress((files("serving_stack.traces") / name).read_bytes()).decode("ascii")


def _columns(name: str) -> dict[str, Floats]:
    """A CSV of numbers by column; what is empty is NaN."""
    head, *rows = (line.split(",") for line in _read(name).splitlines())
    values = np.array([[float(cell) if cell else np.nan for cell in row] for row in rows])
    return {column: values[:, i] for i, column in enumerate(head)}

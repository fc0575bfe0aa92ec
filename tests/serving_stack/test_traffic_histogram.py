"""Percentiles, and the histogram log as HdrHistogram's own reader sees it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_stack.traffic.histogram import LONGEST, HistogramLog, Latencies


@settings(deadline=None)
@given(st.lists(st.floats(1e-3, 100), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 99, 99.9, 100]))
def test_percentiles_have_three_digits(values: list[float], p: float) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    exact = float(np.percentile(values, p, method="inverted_cdf"))
    assert latencies.percentile(p) == pytest.approx(exact, rel=1.1e-3, abs=2e-6)


def test_no_values_no_percentile_and_none_is_too_short_or_too_long() -> None:
    latencies = Latencies()
    assert latencies.percentile(99) is None
    for value in (0.0, -1.0, 1e-9, 1e9):
        latencies.add(value)
    assert latencies.percentile(1) == 1e-6
    assert latencies.percentile(100) == pytest.approx(LONGEST, rel=1e-3)


def test_the_log_reads_back(tmp_path: Path) -> None:
    one, two = Latencies(), Latencies()
    for value in (0.010, 0.020, 0.5):
        one.add(value)
        two.add(value * 2)
    file = io.BytesIO()
    log = HistogramLog(file, start=1_800_000_000.0)
    log.write({None: one, "7": two}, 1_800_000_000.0, 1_800_000_001.0)
    log.write({None: Latencies()}, 1_800_000_001.0, 1_800_000_002.0)
    path = tmp_path / "traffic.hlog"
    path.write_bytes(file.getvalue())

    reader = HistogramLogReader(str(path), HdrHistogram(1, 3_600_000_000, 3))
    whole, tagged, empty = (reader.get_next_interval_histogram() for _ in range(3))
    assert reader.get_next_interval_histogram() is None
    assert whole.get_tag() is None and tagged.get_tag() == "v7"
    assert whole.get_total_count() == tagged.get_total_count() == 3
    assert whole.get_value_at_percentile(50) == pytest.approx(20_000, rel=1e-3)  # microseconds
    assert tagged.get_max_value() == pytest.approx(1_000_000, rel=1e-3)
    assert whole.get_start_time_stamp() == 1_800_000_000_000
    assert empty.get_total_count() == 0
    assert path.read_text().splitlines()[5].split(",")[2] == "500.223"  # the longest of the interval, milliseconds

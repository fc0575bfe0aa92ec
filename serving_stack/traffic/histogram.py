"""Latencies as High Dynamic Range histograms, and their log: three digits of any value, in memory that does not grow."""

from __future__ import annotations

import math
from typing import IO

import numpy as np
from hdrh.histogram import HdrHistogram

LONGEST = 3600.0
"""Seconds. What takes longer counts as this."""


class Latencies:
    """Counts of latencies from a microsecond to an hour, three significant digits each."""

    def __init__(self) -> None:
        self._counts = HdrHistogram(1, round(LONGEST * 1e6), 3)

    def add(self, seconds: float) -> None:
        self._counts.record_value(min(max(1, round(seconds * 1e6)), round(LONGEST * 1e6)))

    def percentile(self, p: float) -> float | None:
        """The p-th percentile in seconds: the smallest value that p percent are not above. None when there is no value."""
        if not self._counts.total_count:
            return None
        # The library walks the counts one by one in Python: a thousand times slower, and it runs while requests are sent.
        below = np.cumsum(np.ctypeslib.as_array(self._counts.counts))
        index = int(np.searchsorted(below, max(1, math.ceil(below[-1] * p / 100))))
        value = self._counts.get_highest_equivalent_value(self._counts.get_value_from_index(index))
        return round(int(value) / 1e6, 6)

    def line(self, tag: str | None, start: float, seconds: float) -> str:
        """A line of an HDR log: the histogram of the interval that began at `start` (unix time) and lasted `seconds`."""
        payload = self._counts.encode().decode("ascii")
        longest = (self._counts.get_max_value() if self._counts.total_count else 0) / 1e3
        return f"{f'Tag={tag},' if tag else ''}{start:.3f},{seconds:.3f},{longest:.3f},{payload}\n"


class HistogramLog:
    """Writes the format that HdrHistogram's tools read (version 1.3), one line per interval and tag; values in microseconds.

    The library's own writer knows no tags and cuts the interval's maximum to whole units.
    """

    def __init__(self, file: IO[bytes], start: float) -> None:
        self._file = file
        head = [
            "#[Histogram log format version 1.3]",
            "#[trimtab traffic: from the intended send time to the answer, microseconds; one tag per version]",
            f"#[StartTime: {start:.3f} (seconds since epoch)]",
            "#[BaseTime: 0.000 (seconds since epoch)]",
            '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
        ]
        file.write("".join(f"{line}\n" for line in head).encode())

    def write(self, intervals: dict[str | None, Latencies], start: float, end: float) -> None:
        """One interval, unix times; the tag None is all versions together."""
        for tag, latencies in intervals.items():
            name = None if tag is None else f"v{tag}"
            self._file.write(latencies.line(name, start, end - start).encode())
        self._file.flush()

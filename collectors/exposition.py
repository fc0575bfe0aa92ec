"""Metrics pages to series: Prometheus text format 0.0.4 (and OpenMetrics when a page says that it is).

prometheus-client's own text parser costs about 13 µs a series and renames counters (it appends ``_total``), so the text format is
parsed here: strictly, in one pass, remembering the series of a target so that its next page costs well under 1 µs a series.
Differential tests hold this parser to prometheus-client's. OpenMetrics, which is rare, is left to the library.

    >>> Parser().parse(b'# TYPE up gauge\\nup{zone="b",host="a"} 1\\nload NaN\\n')
    {'up{host="a",zone="b"}': 1.0, 'load': None}
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from trimtab.errors import TrimtabError

Reason = Literal["connect", "timeout", "disconnect", "redirect", "status", "too_large", "malformed"]


class ScrapeError(TrimtabError):
    """A scrape that gave nothing usable. `reason` is one of a few words (a metric label); the text says what happened."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """What a page may be at most; one that is more is refused whole, never cut."""

    body_bytes: int = 4 * 1024 * 1024
    series: int = 20_000
    label_length: int = 1024


_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\[\\n"])*)"[ \t]*')
_REST = re.compile(r"[ \t]*(\S+)(?:[ \t]+[+-]?[0-9]+)?\Z")
_NUMBER = re.compile(
    r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?|[nN][aA][nN])"
)
_ESCAPED = re.compile(r"\\(.)")
_DROPPED = ""


class Parser:
    """Parses the pages of one target.

    `keep` lists the name prefixes that are kept; none means all. The other series are checked for syntax and left out.
    """

    def __init__(self, limits: Limits = Limits(), keep: Iterable[str] = ()) -> None:
        self._limits = limits
        self._keep = tuple(keep) or ("",)
        self._known: dict[str, str] = {}  # what stands before the value on a line -> key of the series, or _DROPPED

    def parse(self, body: bytes, content_type: str = "") -> dict[str, float | None]:
        """``name{label="value",...}`` (labels sorted by name, escaped as in the format) -> value, in the order of the page.

        NaN, infinities (JSON has none) and DCGM's blanks are `None`: unknown. Timestamps are ignored. Raises `ScrapeError` for
        any malformed line, a series with two different values, a page that is cut off, empty or over the limits.
        """
        text = self._decode(body)
        if content_type.strip().lower().startswith("application/openmetrics-text"):
            return self._openmetrics(text)
        if not text.endswith("\n"):
            raise ScrapeError("malformed", f"line {text.count(chr(10)) + 1}: the page is cut off: its last line has no end")
        return self._text(text)

    def _decode(self, body: bytes) -> str:
        limits = self._limits
        if not body:
            raise ScrapeError("malformed", "the page is empty")
        if len(body) > limits.body_bytes:
            raise ScrapeError("too_large", f"the page is larger than {limits.body_bytes} bytes")
        # Each series may bring its HELP, TYPE and a blank line.
        if body.count(b"\n") > 4 * limits.series:
            raise ScrapeError(
                "too_large", f"the page has more than {4 * limits.series} lines, the limit for {limits.series} series"
            )
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError as error:
            line = body.count(b"\n", 0, error.start) + 1
            raise ScrapeError("malformed", f"line {line}: not UTF-8") from error

    def _text(self, text: str) -> dict[str, float | None]:
        if len(self._known) > 2 * self._limits.series:  # a target whose labels change all the time
            self._known.clear()
        known, series, is_number, most = self._known, dict[str, float | None](), _NUMBER.fullmatch, self._limits.series
        samples = 0
        for number, line in enumerate(text.split("\n"), 1):
            head, _, tail = line.rpartition(" ")
            key = known.get(head)
            if key is None or not is_number(tail):
                line = line.strip(" \t\r")
                if not line or line[0] == "#":
                    continue
                try:
                    key, start, end = self._sample(line)
                except ValueError as error:
                    raise ScrapeError("malformed", f"line {number}: {error}: {_shown(line)}") from error
                tail = line[start:end]
                if line[start - 1] == " " and end == len(line):  # what the fast path will see: "<head> <value>"
                    known[line[: start - 1]] = key
            samples += 1
            if samples > most:
                raise ScrapeError("too_large", f"line {number}: more than {most} series")
            if key is not _DROPPED:
                value = _value(key, float(tail))
                if key in series and series[key] != value:
                    raise ScrapeError("malformed", f"line {number}: second value for the same series: {_shown(line)}")
                series[key] = value
        return series

    def _sample(self, line: str) -> tuple[str, int, int]:
        """The key of one stripped line, and from where to where its value goes; `ValueError` says what is wrong with it."""
        named = _NAME.match(line)
        if not named:
            raise ValueError("no metric name")
        name, at = named.group(), named.end()
        while line[at : at + 1] in (" ", "\t"):
            at += 1
        if line[at : at + 1] == "{":
            labels, at = self._labels(line, at + 1)
        elif at == named.end():
            raise ValueError("no value" if at == len(line) else "bad character in the metric name")
        else:
            labels = {}
        rest = _REST.match(line, at)
        if not rest or not _NUMBER.fullmatch(rest.group(1)):
            raise ValueError("no number as the value")
        return self._key(name, labels), rest.start(1), rest.end(1)

    def _labels(self, line: str, at: int) -> tuple[dict[str, str], int]:
        labels: dict[str, str] = {}
        while True:
            label = _LABEL.match(line, at)
            if not label:
                closed = line[at:].lstrip(" \t")
                if closed.startswith("}"):
                    return labels, len(line) - len(closed) + 1
                raise ValueError("bad label")
            name, value = label.groups()
            if name in labels:
                raise ValueError(f"label {name} is given twice")
            if name.startswith("__"):
                raise ValueError(f"label {name[:64]} is reserved")
            labels[name] = _ESCAPED.sub(lambda found: "\n" if found.group(1) == "n" else found.group(1), value)
            at = label.end()
            if line[at : at + 1] == ",":
                at += 1
            elif line[at : at + 1] != "}":
                raise ValueError("no comma or brace after a label")

    def _key(self, name: str, labels: dict[str, str]) -> str:
        most = self._limits.label_length
        if any(len(text) > most for text in (name, *labels, *labels.values())):
            raise ScrapeError("too_large", f"series {_shown(name)} has a name or label longer than {most} characters")
        return series_key(name, labels) if name.startswith(self._keep) else _DROPPED

    def _openmetrics(self, text: str) -> dict[str, float | None]:
        series: dict[str, float | None] = {}
        samples = 0
        try:
            for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
                for sample in family.samples:
                    samples += 1
                    if samples > self._limits.series:
                        raise ScrapeError("too_large", f"more than {self._limits.series} series")
                    if key := self._key(sample.name, sample.labels):
                        series[key] = _value(key, float(sample.value))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
            raise ScrapeError("malformed", f"not valid OpenMetrics: {_shown(str(error))}") from error
        return series


def series_key(name: str, labels: dict[str, str]) -> str:
    """The one way in which a series is written: labels sorted by name, values escaped as in the text format."""
    if not labels:
        return name
    pairs = ",".join([f'{label}="{_escape(value)}"' for label, value in sorted(labels.items())])
    return f"{name}{{{pairs}}}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _value(key: str, value: float) -> float | None:
    if not math.isfinite(value) or (value >= 0x7FFFFFF0 and key.startswith("DCGM_") and _is_dcgm_blank(value)):
        return None
    return value


def _is_dcgm_blank(value: float) -> bool:
    """DCGM marks "blank, not found, not supported, not permitted" as base + 0..15: int32, double (2**47) and int64 fields.

    As a double, every int64 blank is 2**63.
    """
    return 0x7FFFFFF0 <= value <= 0x7FFFFFFF or 2.0**47 <= value <= 2.0**47 + 15 or value >= 2.0**63


def _shown(text: str) -> str:
    """A piece of somebody else's text, short and without control characters."""
    return repr(text if len(text) <= 80 else text[:77] + "...")

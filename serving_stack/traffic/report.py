"""What a person sees of a run: a line while it goes on, a table at the end. Pure, from the summary."""

from __future__ import annotations

import math
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from serving_stack.traffic.run import Progress

LATE = 0.05
"""Seconds. Sent later than this after its time, a request says more about this machine than about the server."""
MOST_ADAPTERS = 10
_PERCENTILES = ("p50", "p90", "p99", "p99.9")


def line(progress: Progress) -> Text:
    """How a run stands, in two lines."""
    second, total = progress.second, progress.total
    of = f" of {progress.end:.0f}" if math.isfinite(progress.end) else ""
    time = "warming up" if progress.at < 0 else f"{min(progress.at, progress.end):.0f} s{of}"
    text = Text.assemble(
        (time, "bold"),
        f"  {second['sent']}/s  {second['in_flight']} open  p50 {_ms(second['p50'])}  p99 {_ms(second['p99'])} ms  ",
        (f"{total['errors']} errors", "red" if total["errors"] else "green"),
    )
    versions: dict[str, Any] = total["versions"]  # type: ignore[assignment]
    right = [f"version {name}: {_share(one['accuracy'])} % right" for name, one in versions.items() if one["accuracy"]]
    return text.append("\n" + "   ".join(right))


def table(summary: dict[str, Any]) -> Table:
    """A row for everything and one per version: counts, accuracy with its 95 % interval, latency in milliseconds."""
    title = f"{summary['ended']} answers and errors of {summary['sent']} requests; latency in ms"
    found = _table(title, "version", "right", "wrong", "errors", "accuracy, 95 %", *_PERCENTILES)
    rows = [("all", {**summary, "error": summary["errors"]}), *summary["versions"].items()]
    for name, one in rows:
        counts = (str(one[key]) for key in ("ok", "wrong", "error"))
        found.add_row(name, *counts, _share(one["accuracy"]), *(_ms(one["latency_seconds"][p]) for p in _PERCENTILES))
    return found


def adapters(summary: dict[str, Any]) -> Table | None:
    """The adapters that were asked most; None where none was asked for."""
    asked: dict[str, Any] = summary.get("adapters", {})
    if not asked:
        return None
    title = f"the {min(len(asked), MOST_ADAPTERS)} most asked of {len(asked)} adapters"
    found = _table(title, "adapter", "right", "wrong", "errors", "accuracy, 95 %")
    most = sorted(asked.items(), key=lambda item: -item[1]["ok"] - item[1]["wrong"] - item[1]["error"])[:MOST_ADAPTERS]
    for name, one in most:
        found.add_row(name, *(str(one[key]) for key in ("ok", "wrong", "error")), _share(one["accuracy"]))
    return found


def remarks(summary: dict[str, Any], pin: int | None) -> list[str]:
    """What a reader of the table should know besides."""
    found = [f"{count} × {kind}" for kind, count in sorted(summary["error_kinds"].items(), key=lambda item: -item[1])]
    if summary["unfinished"]:
        found.append(f"{summary['unfinished']} were still open at the end: neither right nor wrong.")
    if summary["warmup_requests"]:
        found.append(f"{summary['warmup_requests']} more during the warm-up, not counted.")
    others = sum(one["ok"] + one["wrong"] for name, one in summary["versions"].items() if name != str(pin))
    if pin is not None and others:
        found.append(f"{others} answers are from other versions than the pinned {pin}.")
    if feedback := summary.get("feedback"):
        kinds = ", ".join(f"{count} × {kind}" for kind, count in feedback["failed_kinds"].items())
        found.append(f"Of {feedback['told']} answers the right label was told{f', not of {kinds}' if kinds else ''}.")
    if summary["latest_send_seconds"] > LATE:
        late = f"{summary['latest_send_seconds'] * 1e3:.0f} ms"
        found.append(f"A request was sent as much as {late} after its time: latencies include that this machine was busy.")
    return found


def _table(title: str, first: str, *others: str) -> Table:
    """Narrow enough for a terminal of 80 columns."""
    found = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    found.add_column(first, no_wrap=True)
    for name in others:
        found.add_column(name, justify="right", no_wrap=True)
    return found


def _ms(seconds: object) -> str:
    return f"{seconds * 1e3:.1f}" if isinstance(seconds, float) else "-"


def _share(accuracy: dict[str, float] | None) -> str:
    if accuracy is None:
        return "-"
    return f"{accuracy['value'] * 100:.1f} ({accuracy['low'] * 100:.1f}-{accuracy['high'] * 100:.1f})"

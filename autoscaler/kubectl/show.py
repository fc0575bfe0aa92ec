"""Writes what was found: tables in kubectl's manner for people, JSON or YAML for programs. Colours only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text
from yaml import safe_dump

from autoscaler.kubectl import words
from autoscaler.kubectl.fleets import Fleet, moment
from autoscaler.kubectl.pods import Pod
from trimtab.messages import Decision, Finding

_SHOULD_BE_TRUE = {"Ready", "TelemetryFresh"}
_GOOD = {"True", "Met", "applied", "ready", "true"}
_BAD = {"False", "Missed", "failed", "quarantined", "Unhealthy"}
_WARN = {"refused", "Unknown", "starting", "leaving"}


def data(found: object, *, yaml: bool) -> None:
    """As JSON or YAML on standard output. Times stay as the messages have them, unknown is null."""
    plain = msgspec.to_builtins(found)
    if yaml:
        sys.stdout.write(safe_dump(plain, sort_keys=False, allow_unicode=True))
    else:
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")


def console() -> Console:
    """A terminal is used as it is; a pipe gets whole lines, however long."""
    made = Console(highlight=False)
    if not made.is_terminal:
        made = Console(highlight=False, width=10_000, soft_wrap=True)
    return made


def fleets(found: Sequence[Fleet], now: float, *, wide: bool, namespaces: bool) -> None:
    """One line per fleet."""
    columns = ["NAME", "READY", "VERSION", "CANARY", "WEIGHT", "REPLICAS", "SLO", "PAUSED", "LAST-DECISION", "AGE"]
    columns = ["NAMESPACE", *columns] if namespaces else columns
    table = _table(columns + (["ARRIVALS", "PHASE", "QUARANTINED", "REASON"] if wide else []))
    for each in sorted(found, key=lambda fleet: (fleet.namespace, fleet.name)):
        cells = [
            each.name,
            each.ready,
            words.text(each.version),
            words.text(each.canary_version),
            words.weight(each.canary_weight),
            words.replicas(each),
            words.text(each.slo),
            words.yes(each.paused),
            words.last(each.last_decision, now),
            words.age(each.created, now),
        ]
        more = [
            words.rate(each.arrivals_per_second),
            words.text(each.phase),
            str(len(each.quarantined)),
            words.text(each.last_decision.reason),
        ]
        _row(table, ([each.namespace] if namespaces else []) + cells + (more if wide else []))
    _print(table)


def fleet(each: Fleet, pods: Sequence[Pod], now: float) -> None:
    """All about one fleet."""
    out = console()
    arriving = "arrivals unknown" if each.arrivals_per_second is None else f"{words.rate(each.arrivals_per_second)} arriving"
    size = f"{words.replicas(each)} ready, {arriving}, SLO {words.text(each.slo)}"
    _line(
        out, "Fleet", f"{each.namespace}/{each.name}, model {words.text(each.model)}, version {words.text(each.version)} serves"
    )
    _line(out, "Replicas", size)
    if (
        each.spec_version is not None
        and each.version is not None
        and each.spec_version not in (each.version, each.canary_version)
    ):
        _line(out, "Released", f"version {each.spec_version}, which does not serve (history says why)")
    if each.canary_version is not None:
        _line(out, "Canary", f"version {each.canary_version} with {words.weight(each.canary_weight)} of the traffic")
    if each.paused or each.dry_run:
        _line(out, "Paused" if each.paused else "Dry run", "what would be done is said and not done")
    if each.override is not None and (moment(each.override.until) or 0) > now:
        _line(out, "Override", f"{each.override.replicas} replicas until {each.override.until}")
    if not each.up_to_date:
        _line(out, "Note", "the operator has not seen the newest spec yet: what follows is older")
    last = each.last_decision
    _line(out, "Decision", words.last(last, now) + (f": {last.reason}" if last.reason else ""))
    if each.requests:
        newest = each.requests[-1]
        when = f" ({words.age(newest.time, now)} ago)" if newest.time else ""
        _line(out, "Last request", f"{words.text(newest.kind)} {words.text(newest.outcome)}{when}: {words.text(newest.reason)}")
    for condition in each.conditions:
        if condition.type in _SHOULD_BE_TRUE or condition.status == "True":
            said = f"{condition.status} {condition.reason or ''}" + (f": {condition.message}" if condition.message else "")
            _line(out, condition.type, said.strip())
    if each.versions:
        out.print()
        table = _table(["VERSION", "ROLE", "WEIGHT", "READY", "WANTED"])
        for pool in each.versions:
            _row(
                table,
                [
                    f"v{pool.version}",
                    words.text(pool.role),
                    words.weight(pool.weight),
                    words.text(pool.ready),
                    words.text(pool.wanted),
                ],
            )
        out.print(table)
    if pods:
        out.print()
        _pods(out, pods, now)


def decisions(found: Sequence[Decision], now: float, *, wide: bool) -> None:
    """One line per decision, newest first."""
    if not found:
        console().print("No decision is known: Events are kept for an hour by most API servers, see --kafka for older ones.")
        return
    table = _table(
        ["TIME", "AGE", "ACTION", "ABOUT", "OUTCOME", "CHANGE", "REASON"] + (["TOOK", "BECAUSE", "ID"] if wide else [])
    )
    for each in found:
        cells = [
            words.clock(each.time),
            words.age(each.time, now),
            each.action + (" (dry run)" if each.dry_run else ""),
            words.about(each),
            each.outcome,
            words.text(words.change(each)),
            each.reason,
        ]
        _row(table, cells + ([f"{each.took:.2f}s", words.text(", ".join(each.because)), each.id] if wide else []))
    _print(table)


def findings(found: Iterable[Finding], now: float) -> None:
    """One line per finding, newest onset first."""
    table = _table(["SINCE", "KIND", "STATE", "CONFIDENCE", "SUMMARY"])
    for each in sorted(found, key=lambda finding: finding.onset, reverse=True):
        _row(table, [words.age(each.onset, now), each.kind, each.state, f"{each.confidence:.0%}", each.summary])
    _print(table)


def pods(found: Sequence[Pod], now: float) -> None:
    """One line per pod."""
    _pods(console(), found, now)


def said(text: str) -> None:
    """A sentence on standard output."""
    console().print(Text(text))


def _pods(out: Console, found: Sequence[Pod], now: float) -> None:
    table = _table(["POD", "ROLE", "VERSION", "STATE", "READY", "RESTARTS", "NODE", "AGE", "TROUBLE"])
    for pod in found:
        version = words.NONE if pod.version is None else f"v{pod.version}"
        ready = words.yes(pod.ready)
        _row(
            table,
            [
                pod.name,
                words.text(pod.role),
                version,
                pod.state,
                ready,
                str(pod.restarts),
                words.text(pod.node),
                words.age(pod.created, now),
                words.text(pod.trouble),
            ],
        )
    out.print(table)


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, no_wrap=index != len(columns) - 1 and name not in ("REASON", "CHANGE", "BECAUSE"), overflow="fold")
    return table


def _row(table: Table, cells: Sequence[str]) -> None:
    table.add_row(*(Text(cell, style=_style(cell)) for cell in cells))


def _style(cell: str) -> str:
    if cell in _GOOD:
        return "green"
    if cell in _BAD:
        return "red"
    return "yellow" if cell in _WARN else ""


def _print(table: Table) -> None:
    console().print(table)


def _line(out: Console, name: str, value: Any) -> None:
    out.print(Text.assemble((f"{name + ':':<15}", "bold"), " ", str(value)))

"""Values as people read them in a table. Unknown is a dash."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from autoscaler.kubectl.fleets import Fleet, LastDecision, moment
from trimtab.errors import TrimtabError
from trimtab.messages import Decision

NONE = "-"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def text(value: object) -> str:
    """The value, a dash when there is none."""
    return NONE if value is None or value == "" else str(value)


def yes(value: bool) -> str:
    """As kubectl's own columns say it."""
    return "true" if value else "false"


def age(since: str | float | None, now: float) -> str:
    """How long ago, as kubectl says it: 12s, 5m3s, 3h5m, 2d4h.

    >>> age(0.0, 303.0), age(0.0, 90000.0)
    ('5m3s', '25h')
    """
    at = moment(since) if isinstance(since, str) else since
    if at is None:
        return NONE
    return span(max(0.0, now - at))


def span(seconds: float) -> str:
    """A duration in at most two units, fewer the longer it is."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60}s" if whole % 60 else f"{whole // 60}m"
    if whole < 3 * 3600:
        return f"{whole // 60}m"
    if whole < 8 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60}m"
    if whole < 48 * 3600:
        return f"{whole // 3600}h"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h" if whole < 8 * 86_400 else f"{whole // 86_400}d"


def seconds_of(duration: str) -> float:
    """Seconds of ``90s``, ``30m``, ``2h``, ``1h30m``, ``1d``. Raises `TrimtabError`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise TrimtabError(f"'{duration}' is no duration; write it as 90s, 30m, 2h, 1h30m or 1d")
    found = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if found <= 0:
        raise TrimtabError(f"'{duration}' is no time at all")
    return found


def clock(at: float) -> str:
    """A moment in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def replicas(fleet: Fleet) -> str:
    """Ready over desired."""
    if fleet.ready_replicas is None and fleet.desired_replicas is None:
        return NONE
    return f"{text(fleet.ready_replicas)}/{text(fleet.desired_replicas)}"


def weight(value: int | None) -> str:
    """Percent."""
    return NONE if value is None else f"{value}%"


def rate(value: float | None) -> str:
    """Requests per second."""
    return NONE if value is None else f"{value:.1f}/s"


def last(decision: LastDecision, now: float) -> str:
    """The last decision in a few words: what, how it ended unless it was done, and when."""
    if decision.action is None:
        return NONE
    how = "" if decision.outcome in (None, "applied") else f" {decision.outcome}"
    when = f" ({age(decision.time, now)} ago)" if decision.time else ""
    return f"{decision.action}{how}{when}"


def change(decision: Decision) -> str:
    """What a decision changes: ``replicas 2 -> 4``."""
    before, after = decision.from_, decision.to
    changed = [key for key in dict.fromkeys([*before, *after]) if before.get(key) != after.get(key)]
    return ", ".join(f"{key} {_side(before.get(key))} -> {_side(after.get(key))}" for key in changed)


def about(decision: Decision) -> str:
    """Which replica or version a decision is about."""
    if decision.target:
        return decision.target
    return f"v{decision.version}" if decision.version is not None else NONE


def _side(value: object) -> str:
    if isinstance(value, bool):
        return yes(value)
    if isinstance(value, dict):
        return "/".join(f"v{key}:{item}" for key, item in value.items())
    return text(value)

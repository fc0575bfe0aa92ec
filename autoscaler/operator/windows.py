"""Windows of time: whether one holds at a moment. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from zoneinfo import ZoneInfo

from autoscaler.operator.api import ModelFleetSpec, Replicas, Window
from trimtab.errors import SettingsError

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_ANY = TypeVar("_ANY", bound=Window)


def holds(window: Window, now: float) -> bool:
    """Whether the window holds at unix time `now`. Raises `SettingsError` for a time zone that does not exist.

    >>> from autoscaler.operator.api import Freeze
    >>> holds(Freeze(days=["Fri"], from_="22:00", to="06:00"), 1_795_837_200.0)  # Saturday 2026-11-28, 03:40 UTC
    True
    """
    moment = datetime.fromtimestamp(now, UTC)
    if (window.start and moment < _aware(window.start)) or (window.end and moment >= _aware(window.end)):
        return False
    local = moment.astimezone(_zone(window.time_zone))
    minute = local.hour * 60 + local.minute
    begin, end = _minutes(window.from_), _minutes(window.to)
    if begin < end:
        return begin <= minute < end and _on(window, local)
    # Over midnight: the evening of a day that is named, or the morning after one.
    return (minute >= begin and _on(window, local)) or (minute < end and _on(window, local - timedelta(days=1)))


def first(windows: Sequence[_ANY], now: float) -> _ANY | None:
    """The first window that holds."""
    return next((window for window in windows if holds(window, now)), None)


def bounds(spec: ModelFleetSpec, now: float) -> tuple[int, int]:
    """Fewest and most replicas now, by schedule and override."""
    entry = first(spec.schedule, now)
    plain: Replicas = spec.replicas
    least = entry.min_replicas if entry and entry.min_replicas is not None else plain.min
    most = entry.max_replicas if entry and entry.max_replicas is not None else plain.max
    most = max(most, 1)
    least = min(least, most)
    if spec.override is not None and now < _aware(spec.override.until).timestamp():
        size = min(max(spec.override.replicas, least), most)
        return size, size
    return least, most


def _on(window: Window, local: datetime) -> bool:
    return not window.days or _DAYS[local.weekday()] in window.days


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise SettingsError(f"'{name}' is no time zone: use an IANA name such as Europe/Berlin") from error


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

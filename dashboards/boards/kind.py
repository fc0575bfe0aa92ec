"""What a dashboard is before it is laid out."""

from __future__ import annotations

from dataclasses import dataclass

from dashboards.panels import Sections

PREFIX = "trimtab-"
"""Every uid of ours begins with it: what begins with it and is not ours any more is removed by a push."""


@dataclass(frozen=True)
class Board:
    """A dashboard. `one_fleet` says that it starts with one fleet rather than all; the uid never changes."""

    uid: str
    title: str
    about: str
    sections: Sections
    one_fleet: bool = False
    span: str = "now-6h"

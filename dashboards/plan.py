"""What a push would change: pure, over what Grafana says that it has.

Grafana keeps every saved version of a dashboard with a message. Ours says ``trimtab <fingerprint>``: when the newest message is
another, somebody else saved it; when its fingerprint is the wanted one, nothing need be done. The content itself is not compared,
for a newer Grafana rewrites it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dashboards.boards.kind import PREFIX
from dashboards.build import Json, fingerprint, text

Kind = Literal["create", "update", "keep", "remove", "edited"]
_MESSAGE = "trimtab "


@dataclass(frozen=True)
class There:
    """A dashboard as Grafana has it: its content, and the message of its newest version."""

    content: Json
    message: str


@dataclass(frozen=True)
class Change:
    """What becomes of one dashboard. `edited` means that it is left alone, because somebody saved it by hand."""

    kind: Kind
    uid: str
    diff: tuple[str, ...] = ()


def message_of(dashboard: Json) -> str:
    """The message that our version of a dashboard is saved with."""
    return _MESSAGE + fingerprint(dashboard)


def ours(uid: str) -> bool:
    """Whether a uid can be one of our dashboards."""
    return uid.startswith(PREFIX)


def plan(wanted: Mapping[str, Json], there: Mapping[str, There], *, force: bool) -> list[Change]:
    """A change per dashboard, wanted ones first; with `force`, those edited by hand are overwritten or removed too."""
    changes = [_wanted(uid, dashboard, there.get(uid), force) for uid, dashboard in wanted.items()]
    obsolete = [uid for uid in there if uid not in wanted and ours(uid)]
    return changes + [Change("remove" if force or _is_ours(there[uid]) else "edited", uid) for uid in sorted(obsolete)]


def _wanted(uid: str, dashboard: Json, found: There | None, force: bool) -> Change:
    if found is None:
        return Change("create", uid)
    if found.message == message_of(dashboard):
        return Change("keep", uid)
    diff = tuple(_diff(found.content, dashboard))
    return Change("update" if force or _is_ours(found) else "edited", uid, diff)


def _is_ours(found: There) -> bool:
    return found.message.startswith(_MESSAGE)


def _diff(old: Json, new: Json) -> Iterable[str]:
    before, after = ({key: value for key, value in each.items() if key not in ("id", "version")} for each in (old, new))
    return difflib.unified_diff(text(before).splitlines(), text(after).splitlines(), "in Grafana", "wanted", lineterm="", n=2)

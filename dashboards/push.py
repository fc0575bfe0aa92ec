"""`trimtab dashboards push`: looks, plans, refuses before anything is changed, then applies."""

from __future__ import annotations

from collections.abc import Callable

from dashboards.build import dashboards
from dashboards.grafana import Grafana, source_differs
from dashboards.plan import Change, plan
from trimtab.errors import SettingsError

_WORDS = {
    "create": "would be created",
    "update": "would be updated",
    "keep": "is as wanted",
    "remove": "would be removed: it is not part of Trimtab any more",
    "edited": "was edited by hand",
}
_DONE = {"create": "created", "update": "updated", "keep": "is as wanted", "remove": "removed", "edited": "was edited by hand"}


def push(grafana: Grafana, *, prometheus: str | None, dry_run: bool, force: bool, say: Callable[[str], None]) -> list[Change]:
    """Makes Grafana's dashboards those of this version; the data source only when `prometheus` is given.

    Doing it again changes nothing. A dashboard that somebody saved by hand stops all of it, before anything is written, with
    `SettingsError`, unless `force`. A dry run says what would be done, with a diff.
    """
    wanted = dashboards()
    there = grafana.dashboards()
    for uid in wanted.keys() - there.keys():
        if (found := grafana.dashboard(uid)) is not None:  # somebody took the tag off
            there[uid] = found
    changes = plan(wanted, there, force=force)
    existing = grafana.source() if prometheus else None
    new_source = prometheus is not None and source_differs(existing, prometheus)
    if dry_run:
        if new_source:
            say(f"data source would be {'created' if existing is None else 'updated'}")
        for change in changes:
            say(f"{change.uid} {_WORDS[change.kind]}")
            for line in change.diff:
                say(f"  {line}")
        return changes
    edited = [change.uid for change in changes if change.kind == "edited"]
    if edited:
        raise SettingsError(
            f"edited by hand in Grafana: {', '.join(edited)}. Nothing was changed. Save your edits under another name and push "
            "with --force, which overwrites them; --dry-run shows the difference."
        )
    if new_source and prometheus:
        grafana.put_source(prometheus, existing)
        say(f"data source {'created' if existing is None else 'updated'}")
    if any(change.kind in ("create", "update") for change in changes):
        grafana.ensure_folder()
    for change in changes:
        grafana.apply(change, wanted.get(change.uid))
        say(f"{change.uid} {_DONE[change.kind]}")
    return changes

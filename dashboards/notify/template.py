"""The user's message template and link: checked at start against a sample, rendered in Jinja's sandbox."""

from __future__ import annotations

import functools
import string
from urllib.parse import quote

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trimtab.messages import Decision, Evidence, Finding, Happening, Incident, IncidentUpdate

_LONGEST = 8000
"""Characters of a rendered text; receivers refuse more."""

_LINK_FIELDS = {"fleet", "from_ms", "to_ms"}
_LINK_MARGIN = 300.0
"""Seconds that a link shows before the incident and after its last update."""

_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)


@functools.lru_cache(maxsize=64)
def _compiled(text: str) -> Template:
    return _environment.from_string(text)


def render(text: str, update: IncidentUpdate, link: str | None) -> str:
    """The text for one update. Raises `ValueError` in words."""
    try:
        said = _compiled(text).render(
            update=update, incident=update.incident, finding=update.finding, decision=update.decision, link=link
        )
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise ValueError(f"template{f' line {line}' if line else ''}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"template: {type(error).__name__}: {error}") from error
    return said[:_LONGEST]


def check(text: str) -> None:
    """Raises `ValueError` in words when the template cannot be rendered for every kind of update."""
    for update in samples():
        render(text, update, "https://grafana.example/d/trimtab-fleet")
        render(text, update, None)


def samples() -> list[IncidentUpdate]:
    """One update of each kind, as a template meets them."""
    finding = Finding(
        id="0" * 16, fleet="intent", target=None, version=3, kind="version_regression", severity="critical", onset=0.0, time=2.0,
        state="firing", confidence=0.95, summary="version 3 is slower", evidence=[Evidence(detector="peers", series="p99")],
    )  # fmt: skip
    decision = Decision(
        id="1" * 16, fleet="intent", time=3.0, action="rollback", version=3, because=[finding.id], outcome="applied", reason="-",
    )  # fmt: skip
    incident = Incident(
        id="2" * 16, fleet="intent", cause="version", subject="3", state="firing", severity="critical", opened=0.0, updated=3.0,
    )  # fmt: skip

    def said(happening: Happening, found: Finding | None = None, decided: Decision | None = None) -> IncidentUpdate:
        return IncidentUpdate(
            id="3" * 16, fleet="intent", time=3.0, happening=happening, incident=incident, title="version 3", text="words",
            finding=found, decision=decided,
        )  # fmt: skip

    return [said("finding", finding), said("act", None, decision), said("reminder"), said("resolved", finding)]


def checked_link(url: str) -> str:
    """The link template as it is; raises `ValueError` in words when it cannot be filled in."""
    if not url.startswith(("https://", "http://")):
        raise ValueError("must begin with https:// or http://")
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(url) if name is not None}
    except ValueError as error:
        raise ValueError(f"not a template: {error}") from error
    if unknown := fields - _LINK_FIELDS:
        known = ", ".join(f"{{{name}}}" for name in sorted(_LINK_FIELDS))
        raise ValueError(f"unknown field {{{min(unknown)}}}; there are {known}")
    return url


def link(url: str | None, incident: Incident) -> str | None:
    """The link to the dashboard around an incident, None without a template."""
    if url is None:
        return None
    begin, end = incident.opened - _LINK_MARGIN, incident.updated + _LINK_MARGIN
    return url.format(fleet=quote(incident.fleet, safe=""), from_ms=int(begin * 1000), to_ms=int(end * 1000))

"""Fills in what the code knows better than a page: settings, the rollout's table, the detectors' own words.

A page asks with a line such as `<!-- from the code: settings -->`.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from annotated_types import BaseMetadata
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from autoscaler.rollout import TABLE
from trimtab.settings import Section

ROOT = Path(__file__).parent.parent
PACKAGES = "trimtab", "collectors", "detectors", "autoscaler", "serving_stack", "dashboards", "embedded"
MARK = re.compile(r"<!-- from the code: (\w+) -->")


def on_page_markdown(markdown: str, **_: object) -> str:
    """mkdocs calls this for every page."""
    return MARK.sub(lambda found: FILLERS[found[1]](), markdown)


def sections() -> dict[str, list[type[Section]]]:
    """All sections by name, found where the code defines them; those that only repeat another's fields are left out."""
    found: dict[str, list[type[Section]]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if re.search(r"^class \w+\((settings\.)?Section, name=", path.read_text(), re.MULTILINE):
                module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                for kind in vars(module).values():
                    if isinstance(kind, type) and issubclass(kind, Section) and kind.__module__ == module.__name__:
                        found.setdefault(kind.section, []).append(kind)
    for name, kinds in found.items():
        fullest = max(kinds, key=lambda kind: len(kind.model_fields))
        found[name] = [fullest, *(kind for kind in kinds if not kind.model_fields.keys() <= fullest.model_fields.keys())]
    return found


def settings() -> str:
    """The settings page: a heading per section, an entry per field."""
    lines = []
    for name, kinds in sorted(sections().items()):
        for kind in kinds:
            lines += [f"## {name}", "", f"{_first_words(kind)} Defined in `{kind.__module__.replace('.', '/')}.py`.", ""]
            lines += _fields(kind, f"{name}.", f"TRIMTAB_{name.upper()}_")
    return "\n".join(lines)


def _fields(kind: type[BaseModel], prefix: str, variable: str | None) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        unit = f" · `{variable}{name.upper()}`" if variable else ""
        yield f"### `{prefix}{name}` {{ #{prefix.replace('.', '-').replace('[]', '')}{name} }}"
        yield f"\ndefault **{_default(field)}**{_bounds(field)}{unit}\n\n{_sentence(field.description or '')}\n"
        for inner in _models(field.annotation):
            yield f"Each has:\n\n{_inner_table(inner)}\n"


def _models(annotation: Any) -> list[type[BaseModel]]:
    inside = getattr(annotation, "__args__", ())
    return [each for each in (annotation, *inside) if isinstance(each, type) and issubclass(each, BaseModel)]


def _inner_table(kind: type[BaseModel]) -> str:
    rows = ["| field | default | meaning |", "| --- | --- | --- |"]
    for name, field in kind.model_fields.items():
        words = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{name}` | {_default(field)}{_bounds(field)} | {_sentence(words)} |")
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none: must be given"
    value = field.get_default(call_default_factory=True)
    return "none" if value is None else "an empty list" if value == [] else f"{value}"


def _bounds(field: FieldInfo) -> str:
    names = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
    said = [
        f"{words} {getattr(each, name)}"
        for each in field.metadata
        if isinstance(each, BaseMetadata)
        for name, words in names.items()
        if hasattr(each, name)
    ]
    return f" ({', '.join(said)})" if said else ""


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!")) else text + "."


def _first_words(kind: type) -> str:
    return (kind.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def rollout() -> str:
    """The transition table of a rollout, whole."""
    rows = ["| phase | event | next phase | action | in words |", "| --- | --- | --- | --- | --- |"]
    for (phase, event), to in TABLE.items():
        rows.append(f"| {phase} | {event} | {to.to} | `{to.action}` | {to.words} |")
    return "\n".join(rows)


def detectors() -> str:
    """What each detector's own file says about it."""
    said = []
    for path in sorted((ROOT / "detectors" / "members").glob("*.py")):
        tree = ast.parse(path.read_text())
        words = ast.get_docstring(tree) or ""
        if path.stem in ("__init__", "base") or path.stem.endswith("_network"):
            continue
        head, _, rest = words.partition("\n\n")
        said.append(f"### {path.stem}\n\n**{head}**\n\n{rest}\n\nSource: `detectors/members/{path.name}`\n")
    return "\n".join(said)


FILLERS: dict[str, Callable[[], str]] = {"settings": settings, "rollout": rollout, "detectors": detectors}

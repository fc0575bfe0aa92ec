"""YAML that remembers its line numbers, so that a wrong value is reported with file and line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pydantic
import yaml

from trimtab.errors import SettingsError

Where = tuple[str | int, ...]
Model = TypeVar("Model", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class Document:
    """A parsed YAML file: plain `data`, and the line of every key and item in it."""

    path: Path
    data: object
    lines: dict[Where, int]

    def line(self, where: Sequence[str | int]) -> int:
        """The line (from 1) of the value at `where`, or of the nearest enclosing one that exists."""
        place = tuple(where)
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read(path: Path) -> Document:
    """Parses a file; raises `SettingsError` with file and line when it is not YAML or says a key twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Where, int] = {}
        if node is not None:
            _walk(path, node, (), lines)
        return Document(path, yaml.safe_load(text), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise SettingsError(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise SettingsError(f"{path}: not valid YAML: {error}") from error


def _walk(path: Path, node: yaml.Node, where: Where, lines: dict[Where, int]) -> None:
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise SettingsError(f"{path}:{key.start_mark.line + 1}: '{name}' is given twice")
            seen.add(name)
            lines[(*where, name)] = key.start_mark.line + 1
            _walk(path, value, (*where, name), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*where, index)] = item.start_mark.line + 1
            _walk(path, item, (*where, index), lines)


def validate(document: Document, model: type[Model], under: Where = ()) -> Model:
    """The document (or the part at `under`) as this model; `SettingsError` lists every mistake as ``file:line: where: what``."""
    data = document.data
    for step in under:
        data = data.get(step) if isinstance(data, dict) else None
    try:
        return model.model_validate({} if data is None else data)
    except pydantic.ValidationError as error:
        raise SettingsError(explain(error, document, under)) from error


def explain(error: pydantic.ValidationError, document: Document, under: Where = ()) -> str:
    """Every mistake in `error` on a line of its own, with the file and line it comes from."""
    said: dict[str, None] = {}
    for mistake in error.errors():
        where = (*under, *mistake["loc"])
        place = ".".join(str(step) for step in where) or "top level"
        said[f"{document.path}:{document.line(where)}: {place}: {in_words(mistake['type'], mistake['msg'])}"] = None
    return "\n".join(said)


def in_words(kind: str, message: str) -> str:
    """pydantic's message in the words of somebody who writes a file."""
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "missing"
    return message.removeprefix("Value error, ")

"""Labelled text to tune on: BANKING77 as shipped, or a person's own CSV or JSONL file. Standard library only."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving_stack.banking import Question, digest, hold_out, intents, questions
from trimtab.errors import Missing, TrimtabError

TEXT, LABELS = "text", ("label", "intent", "category")
"""The names of the columns, or of the keys of a JSON line."""


@dataclass(frozen=True)
class Labelled:
    """Texts with labels. The position of a label in `labels` is its class number; `digest` (SHA-256) says which data it is."""

    name: str
    labels: list[str]
    questions: list[Question]
    digest: str
    licence: str | None = None

    def split(self, share: float, seed: int) -> tuple[list[Question], list[Question]]:
        """(for training, for validation): `share` of each label is held out, none with 0. Raises `TrimtabError`."""
        if share == 0:
            return list(self.questions), []
        counts = Counter(question.intent for question in self.questions)
        for label, count in counts.items():
            if count < 2:
                raise TrimtabError(
                    f"{self.name}: label '{label}' has one text, and one of each label is held out for validation; "
                    "add another, or hold out none with --validation 0"
                )
        return hold_out(self.questions, share, seed)


def banking() -> Labelled:
    """BANKING77's training split."""
    return Labelled("BANKING77", intents(), questions("train"), digest(), "CC BY 4.0")


def read(file: Path) -> Labelled:
    """A CSV with a header, or JSON lines (`.jsonl`): `text`, and `label` (or `intent`, or `category`).

    Labels are numbered in the order of their names. The same pair twice counts twice. Raises `Missing`, or `TrimtabError` with
    the line, for what is no labelled text.
    """
    if not file.is_file():
        raise Missing(f"{file} is not there: --data wants a CSV or JSONL file with the columns text and label")
    rows = _json_lines if file.suffix.lower() in (".jsonl", ".ndjson") else _csv
    try:
        found = [_question(file, line, text, label) for line, text, label in rows(file)]
    except UnicodeDecodeError as error:
        raise TrimtabError(f"{file} is not UTF-8: {error}") from error
    labels = sorted({question.intent for question in found})
    if len(labels) < 2:
        raise TrimtabError(f"{file} has {len(found)} texts with {len(labels)} labels; at least two labels are needed")
    total = hashlib.sha256(json.dumps([labels, found], ensure_ascii=False).encode())
    return Labelled(file.name, labels, found, total.hexdigest())


def _question(file: Path, line: int, text: object, label: object) -> Question:
    for name, value in ((TEXT, text), ("label", label)):
        if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
            raise TrimtabError(f"{file}, line {line}: no {name}")
    return Question(str(text).strip(), str(label).strip())


def _csv(file: Path) -> Iterator[tuple[int, object, object]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            names = reader.fieldnames or []
            label = next((name for name in LABELS if name in names), None)
            if TEXT not in names or label is None:
                found = ", ".join(names) or "none"
                raise TrimtabError(f"{file}, line 1: the columns are {found}; wanted are {TEXT} and {' or '.join(LABELS)}")
            for row in reader:
                if None in row:
                    raise TrimtabError(f"{file}, line {reader.line_num}: more fields than columns; put the text in quotes")
                yield reader.line_num, row[TEXT], row[label]
        except csv.Error as error:
            raise TrimtabError(f"{file}, line {reader.line_num}: {error}") from error


def _json_lines(file: Path) -> Iterator[tuple[int, object, object]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise TrimtabError(f"{file}, line {number}: no JSON: {error}") from error
            if not isinstance(row, dict):
                raise TrimtabError(f"{file}, line {number}: no JSON object")
            yield number, row.get(TEXT), next((row[name] for name in LABELS if name in row), None)

"""BANKING77: 77 intents of bank customers, shipped with the package (`data/`, CC BY 4.0). Standard library only."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Literal, NamedTuple

DATA = Path(__file__).parent / "data"

Split = Literal["train", "test"]


class Question(NamedTuple):
    """What a customer asked, and the intent that a person gave it."""

    text: str
    intent: str


def intents() -> list[str]:
    """The 77 intents; the position of each is its class number in every model."""
    names: list[str] = json.loads((DATA / "categories.json").read_text(encoding="utf-8"))
    return names


def questions(split: Split) -> list[Question]:
    """All questions of one split, in file order: 10,003 of `train`, 3,080 of `test`."""
    with (DATA / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return [Question(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]


def hold_out(all_questions: list[Question], share: float, seed: int) -> tuple[list[Question], list[Question]]:
    """Split off `share` of each intent for validation: (for training, for validation). The same seed gives the same split."""
    by_intent: defaultdict[str, list[Question]] = defaultdict(list)
    for question in all_questions:
        by_intent[question.intent].append(question)
    chance = random.Random(seed)
    kept: list[Question] = []
    held: list[Question] = []
    for intent in sorted(by_intent):
        group = by_intent[intent]
        chance.shuffle(group)
        cut = max(1, round(len(group) * share))
        held += group[:cut]
        kept += group[cut:]
    return kept, held


def digest() -> str:
    """SHA-256 over both splits and the intents: says in a result card which data a model was made from."""
    total = hashlib.sha256()
    for name in ("categories.json", "train.csv", "test.csv"):
        total.update((DATA / name).read_bytes())
    return total.hexdigest()

"""What was tuned once and is too large to be shipped: its result card, with what the test split said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "cards"


def kept() -> dict[str, dict[str, Any]]:
    """Every kept card by its name: what `trimtab tune` or `trimtab compress` wrote, and `test` with the accuracies of its row."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))}


def name_of(card: dict[str, Any]) -> str:
    """What a card's model is called in the table: how it was compressed, or how it was tuned. LoRA where no card says."""
    return str(card.get("compress", {}).get("method") or card.get("method", "lora"))

"""The table of ways of tuning: kept cards are whole, and the benchmark measures what is shipped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import frame
from benchmarks.tune.cards import kept, name_of
from serving_stack.banking import digest
from serving_stack.intervals import wilson
from trimtab.errors import Missing, SettingsError


@pytest.mark.parametrize(("name", "card"), kept().items(), ids=list(kept()))
def test_a_kept_card_says_from_what_and_how_well(name: str, card: dict[str, Any]) -> None:
    assert name_of(card) == name
    assert card["data"]["sha256"] == digest(), "of the data that is shipped"
    assert card["recipe"]["validation"] > 0, "chosen on what was held out"
    assert set(card["test"]) == {"float32", "int8"}
    for found in card["test"].values():
        assert found["total"] == 3080
        assert found["accuracy"] == pytest.approx(found["right"] / 3080)
        assert (found["low"], found["high"]) == pytest.approx(wilson(found["right"], 3080))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="holds no adapter and no tuned network"):
        frame.measure("tune", frame.Options(runs=(tmp_path,), say=lambda text: None))
    with pytest.raises(SettingsError, match="takes no --seeds"):
        frame.measure("tune", frame.Options(seeds=(1,), say=lambda text: None))


@pytest.mark.integration
def test_quick_measures_the_shipped_adapter_beside_kept_cards() -> None:
    record = frame.measure("tune", frame.Options(quick=True, say=lambda text: None))
    rows, figures = record["rows"], record["figures"]
    assert isinstance(rows, list) and isinstance(figures, dict)
    assert all(row.keys() == rows[0].keys() for row in rows)
    measured = [row for row in rows if row["from"] == "measured"]
    assert [row["weights"] for row in measured] == ["float32", "int8"]
    assert all(row["latency_ms"] > 0 and row["per_second"] > 0 for row in measured)
    assert 0.9 < figures["lora_accuracy"] < 1
    assert figures["adapter_bytes"] < 1_500_000
    assert abs(figures["int8_loss_points"]) < 2
    assert all(math.isfinite(value) for value in figures.values())
    assert {f"{name}_accuracy" for name in kept()} <= figures.keys()

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import frame
from trimtab.errors import SettingsError


def test_every_benchmark_says_what_it_measures() -> None:
    assert frame.names()
    assert all(frame.names().values())


def test_an_unknown_benchmark_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="accuracy"):
        frame.measure("flying", frame.Options())


def test_a_record_is_shown_and_written_with_machine_and_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record: dict[str, object] = {
        "name": "example",
        "quick": True,
        "command": "trimtab bench example",
        "machine": frame.machine(),
        "rows": [{"what": "ours", "value": 1.5}, {"what": "theirs", "value": None}],
        "figures": {"ratio": None},
        "notes": ["a note"],
    }
    frame.show(record, Console(width=120))
    shown = capsys.readouterr().out
    assert "ours" in shown and "unknown" in shown and "a note" in shown
    frame.write(record, tmp_path / "deep" / "record.json")
    written = json.loads((tmp_path / "deep" / "record.json").read_text())
    assert written["figures"] == {"ratio": None}
    assert written["machine"]["cores"] >= 1

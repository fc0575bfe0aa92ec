"""Finding an exported model is cheap: torch is for making one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving_stack import export
from trimtab.errors import Missing

CODE = """
import sys
from pathlib import Path
from serving_stack import export
cache = Path(sys.argv[1])
assert export.exported(1, cache) is None
folder = export._folder(export.ADAPTERS / "1", cache)
folder.mkdir(parents=True)
assert export.exported(1, cache) == folder == export.ensure_exported(1, cache)
print(sorted({"torch", "transformers", "onnx", "peft"} & set(sys.modules)))
"""


def test_a_cached_model_is_found_without_torch(tmp_path: Path) -> None:
    said = subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "cache")], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_an_adapter_that_is_not_shipped_is_said(tmp_path: Path) -> None:
    for ask in (export.exported, export.ensure_exported):
        with pytest.raises(Missing, match="no adapter 7: shipped are 1, 2"):
            ask(7, tmp_path)


def test_other_weights_or_another_adapter_are_another_folder(tmp_path: Path) -> None:
    assert export._folder(export.ADAPTERS / "1", tmp_path) != export._folder(export.ADAPTERS / "2", tmp_path)

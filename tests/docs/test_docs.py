"""What the documentation takes from the code is whole, and its pictures are small and need no network."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from autoscaler.rollout import TABLE
from autoscaler.settings import AutoscaleSettings

DOCS = Path(__file__).parent.parent.parent / "docs"
PICTURES = sorted(path for path in (DOCS / "images").iterdir() if path.suffix in (".svg", ".png"))
MEMBERS = sorted(
    path.stem
    for path in (DOCS.parent / "detectors" / "members").glob("*.py")
    if path.stem not in ("__init__", "base") and not path.stem.endswith("_network")
)


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    """docs/reference_hook.py, which mkdocs loads from its path."""
    spec = importlib.util.spec_from_file_location("reference_hook", DOCS / "reference_hook.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_section_of_settings_is_found(hook: ModuleType) -> None:
    defined = {
        name
        for package in hook.PACKAGES
        for path in (DOCS.parent / package).rglob("*.py")
        for name in re.findall(r'^class \w+\((?:settings\.)?Section, name="(\w+)"\)', path.read_text(), re.MULTILINE)
    }
    assert hook.sections().keys() == defined


def test_every_setting_is_shown_with_its_default_and_why(hook: ModuleType) -> None:
    page = hook.settings()
    for name, field in AutoscaleSettings.model_fields.items():
        assert f"`autoscale.{name}`" in page
        assert field.description and field.description in page
    for kinds in hook.sections().values():
        assert [f"{kind.__name__}.{n}" for kind in kinds for n, f in kind.model_fields.items() if not f.description] == []


def test_the_table_of_a_rollout_is_whole(hook: ModuleType) -> None:
    assert len(hook.rollout().splitlines()) == len(TABLE) + 2


@pytest.mark.parametrize("member", MEMBERS)
def test_every_detector_has_its_row_and_its_words(hook: ModuleType, member: str) -> None:
    assert f"\n| `{member}` |" in (DOCS / "detectors.md").read_text()
    assert f"### {member}\n" in hook.detectors()


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_small_and_fetches_nothing(picture: Path) -> None:
    assert picture.stat().st_size < 200_000
    if picture.suffix == ".svg":
        addresses = set(re.findall(r"https?://[^\"'\s)]+", picture.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}

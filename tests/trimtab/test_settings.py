from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from trimtab.errors import SettingsError
from trimtab.settings import Section, load


class Example(Section, name="example"):
    interval: float = Field(1.0, gt=0, description="Seconds between scrapes.")
    names: list[str] = []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trimtab.yaml"


def test_defaults_then_file_then_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("other: {x: 1}\nexample:\n  interval: 7\n")
    assert load(Example, file).interval == 7
    monkeypatch.setenv("TRIMTAB_EXAMPLE_INTERVAL", "2.5")
    assert load(Example, file).interval == 2.5
    monkeypatch.setenv("TRIMTAB_EXAMPLE_NAMES", '["a"]')
    assert load(Example, file).names == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("example:\n  interval: soon\n", r"trimtab.yaml:2: example.interval: .*number"),
        ("example:\n  names: []\n  intervall: 1\n", r"trimtab.yaml:3: example.intervall: unknown key"),
        ("example:\n  interval: -1\n", r"trimtab.yaml:2: example.interval: .*greater than 0"),
        ("example:\n  interval: 1\n  interval: 2\n", r"trimtab.yaml:3: 'interval' is given twice"),
        ("example: [1\n", r"trimtab.yaml:\d: not valid YAML"),
        ("example: 3\n", r"trimtab.yaml:1: example: must be a mapping"),
        ("- example\n", r"trimtab.yaml:1: must hold sections"),
        ("a: &a [*a]\nexample: 2020-99-99\n", r"trimtab.yaml"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=said):
        load(Example, file)


def test_a_wrong_variable_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_EXAMPLE_INTERVAL", "soon")
    with pytest.raises(SettingsError, match="TRIMTAB_EXAMPLE_INTERVAL: .*number"):
        load(Example)
    monkeypatch.setenv("TRIMTAB_EXAMPLE_INTERVAL", "1")
    monkeypatch.setenv("TRIMTAB_EXAMPLE_NAMES", "not json")
    with pytest.raises(SettingsError, match="names"):
        load(Example)


def test_a_named_file_must_exist_and_the_default_need_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(Example).interval == 1.0
    with pytest.raises(SettingsError, match="cannot be read"):
        load(Example, tmp_path / "absent.yaml")


def test_text_that_is_not_utf8_is_refused(file: Path) -> None:
    file.write_bytes(b"example: \xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load(Example, file)

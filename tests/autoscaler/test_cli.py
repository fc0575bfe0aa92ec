"""The commands, and the settings behind them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoscaler import cli
from autoscaler.settings import AutoscaleSettings
from trimtab.errors import Missing, SettingsError
from trimtab.settings import load

RUN = CliRunner()


@pytest.mark.parametrize("app", [cli.autoscale, cli.replay, cli.release])
def test_help_teaches_with_an_example(app: object) -> None:
    result = RUN.invoke(app, ["--help"])  # type: ignore[arg-type]
    assert result.exit_code == 0 and "Example: trimtab" in result.output


def test_a_replay_without_steps_says_so(tmp_path: Path) -> None:
    file = tmp_path / "empty.jsonl"
    file.write_text("")
    result = RUN.invoke(cli.replay, ["--recording", str(file)])
    assert isinstance(result.exception, Missing) and "no step of fleet 'intent'" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("canary_weights: [50, 20]", "must rise"),
        ("canary_weights: [20]", "rollout_extra_ratio must be at least 0.80"),
        ("target_utilisation: 1.5", "less than or equal to 1"),
        ("guard_secs: 3", "guard_secs"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "trimtab.yaml"
    file.write_text(f"autoscale:\n  {text}\n")
    with pytest.raises(SettingsError) as refusal:
        load(AutoscaleSettings, file)
    assert words in str(refusal.value) and f"{file}:" in str(refusal.value)


def test_every_setting_says_its_meaning_and_why() -> None:
    for name, field in AutoscaleSettings.model_fields.items():
        assert field.description and len(field.description) > 40, name

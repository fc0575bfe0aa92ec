from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from typer.testing import CliRunner

from trimtab import cli

HEAVY = {"torch", "pyflink", "sklearn", "numpy", "kafka", "onnxruntime", "kubernetes", "transformers", "aiohttp"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "trimtab", *arguments], capture_output=True, text=True, check=False)


def test_help_lists_every_command_that_a_part_offers() -> None:
    answer = run("--help")
    assert answer.returncode == 0
    for point in entry_points(group="trimtab.commands"):
        assert point.name in answer.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, trimtab.cli as c\n"
        "try: c.app(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(point.name for point in entry_points(group="trimtab.commands")))
def test_every_command_explains_itself(name: str) -> None:
    answer = CliRunner().invoke(cli.app, [name, "--help"])
    assert answer.exit_code == 0, answer.output
    assert len(answer.stdout) > 200


def test_an_unknown_command_is_refused_in_words() -> None:
    answer = run("fly")
    assert answer.returncode == 2
    assert "fly" in answer.stderr


def test_an_error_of_ours_is_one_line_and_exit_code_2(tmp_path: object) -> None:
    answer = run("collect", "--targets", "targets.json", "--config", f"{tmp_path}/absent.yaml")
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert "absent.yaml" in answer.stderr

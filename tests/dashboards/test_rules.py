"""Rules: each alert has words and a page; the files pass promtool's and amtool's own checks and unit tests."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from dashboards.rules.files import alerts, files, records
from dashboards.rules.model import Alert

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
UNIT_TESTS = Path(__file__).parent / "promtool"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
needs_amtool = pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    for name, content in files().items():
        (folder / name).write_text(content)
    return folder


def run(*argv: str, cwd: Path) -> str:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_every_alert_says_what_it_is_and_has_a_page(alert: Alert) -> None:
    assert re.fullmatch(r"Trimtab[A-Z]\w+", alert.name)
    assert alert.summary and alert.description.endswith(".")
    entry = alert.entry("https://docs.example/runbooks")
    assert entry["annotations"]["runbook_url"] == f"https://docs.example/runbooks/{alert.name}/"  # type: ignore[index]
    page = (RUNBOOKS / f"{alert.name}.md").read_text()
    assert page.startswith(f"# {alert.name}\n")
    for heading in ("## What it means", "## What Trimtab has done already", "## What to do"):
        assert heading in page


def test_names_are_used_once_and_no_page_is_left_over() -> None:
    names = [alert.name for alert in alerts()]
    assert len(set(names)) == len(names)
    assert len({record.name for record in records()}) == len(records())
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {*names, "index"}


@pytest.mark.integration
@needs_promtool
def test_promtool_accepts_rules_and_configuration(written: Path) -> None:
    said = run("promtool", "check", "rules", "trimtab.recording.yml", "trimtab.alerts.yml", cwd=written)
    assert f"{len(alerts())} rules found" in said and f"{len(records())} rules found" in said
    run("promtool", "check", "config", "prometheus.yml", cwd=written)


@pytest.mark.integration
@needs_amtool
def test_amtool_accepts_the_configuration(written: Path) -> None:
    assert "SUCCESS" in run("amtool", "check-config", "alertmanager.yml", cwd=written)
    for labels, receiver in (
        (("alertname=TrimtabWatchdog", "severity=none"), "dead-mans-switch"),
        (("severity=critical",), "pager"),
        (("severity=warning",), "tickets"),
    ):
        said = run("amtool", "config", "routes", "test", "--config.file=alertmanager.yml", *labels, cwd=written)
        assert said.strip() == receiver


@pytest.mark.integration
@needs_promtool
@pytest.mark.parametrize("file", sorted(UNIT_TESTS.glob("*.yml")), ids=lambda file: file.stem)
def test_promtool_unit_tests(written: Path, file: Path) -> None:
    (written / file.name).write_text(file.read_text())
    run("promtool", "test", "rules", file.name, cwd=written)


def test_every_alert_is_seen_firing_and_silent_by_promtool() -> None:
    """An alert whose unit test cannot fail proves nothing: each is expected both with and without `exp_alerts`."""
    firing: set[str] = set()
    silent: set[str] = set()
    for file in UNIT_TESTS.glob("*.yml"):
        for group in yaml.safe_load(file.read_text())["tests"]:
            for case in group.get("alert_rule_test", ()):
                (firing if case.get("exp_alerts") else silent).add(case["alertname"])
    every = {alert.name for alert in alerts()}
    assert firing == every
    assert silent == every - {"TrimtabWatchdog"}


def test_the_inhibitions_name_alerts_that_exist(written: Path) -> None:
    names = set(re.findall(r"Trimtab[A-Z]\w+", (written / "alertmanager.yml").read_text()))
    assert names <= {alert.name for alert in alerts()}

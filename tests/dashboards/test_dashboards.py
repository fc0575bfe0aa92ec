"""The dashboards as data: the SDK's schema, stable ids, no query left out, no line that does not fit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard
from typer.testing import CliRunner

from dashboards.build import as_json, dashboards, fingerprint, text
from dashboards.cli import dashboards as command
from dashboards.cli import rules as rules_command
from dashboards.queries import QUERIES
from dashboards.write import write
from trimtab.errors import Missing

MADE: dict[str, Any] = dashboards()


def panels(dashboard: Any) -> list[Any]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_the_dashboards_and_their_uids() -> None:
    assert list(MADE) == [
        "trimtab-fleets",
        "trimtab-fleet",
        "trimtab-quality",
        "trimtab-gpus",
        "trimtab-adapters",
        "trimtab-detectors",
        "trimtab-itself",
    ]
    assert all(uid == each["uid"] and len(uid) <= 40 for uid, each in MADE.items())


@pytest.mark.parametrize("uid", MADE)
def test_a_dashboard_passes_through_the_sdk_s_schema_unchanged(uid: str) -> None:
    """Read into the SDK's models and written again by its encoder; a field that the schema does not know would be lost."""
    again: Any = as_json(Dashboard.from_json(json.loads(text(MADE[uid]))))
    wanted = json.loads(text(MADE[uid]))
    # The schema has no place for what the Prometheus plugin reads of an annotation besides its query.
    for mark in wanted["annotations"]["list"]:
        for name in ("titleFormat", "textFormat", "step", "useValueForTime"):
            del mark[name]
    assert again == wanted


@pytest.mark.parametrize("uid", MADE)
def test_every_panel_says_what_it_shows_and_has_a_unit_an_id_and_room(uid: str) -> None:
    every = MADE[uid]["panels"]
    assert Counter(panel["id"] for panel in every).most_common(1)[0][1] == 1
    for panel in panels(MADE[uid]):
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    cells = [
        (x, y)
        for panel in every
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"


def test_every_query_is_shown_and_every_shown_query_is_named() -> None:
    shown = {target["expr"] for each in MADE.values() for panel in panels(each) for target in panel["targets"]}
    shown |= {mark["expr"] for each in MADE.values() for mark in each["annotations"]["list"]}
    assert shown == {query.expr for query in QUERIES.values()}


@pytest.mark.parametrize("uid", MADE)
def test_variables_links_and_annotations(uid: str) -> None:
    each = MADE[uid]
    assert [variable["name"] for variable in each["templating"]["list"]] == ["datasource", "fleet"]
    assert {link["url"] for link in each["links"]} == {f"/d/{other}" for other in MADE if other != uid}
    assert all(link["includeVars"] and link["keepTime"] for link in each["links"])
    assert [mark["name"] for mark in each["annotations"]["list"]] == ["Decisions", "Findings"]


def test_a_fingerprint_ignores_what_grafana_sets_and_nothing_else() -> None:
    each = MADE["trimtab-fleet"]
    assert fingerprint(each | {"id": 4, "version": 12}) == fingerprint(each)
    assert fingerprint(each | {"title": "other"}) != fingerprint(each)
    assert {uid: fingerprint(other) for uid, other in dashboards().items()} == {uid: fingerprint(o) for uid, o in MADE.items()}


def test_write_is_whole_and_repeats_nothing(tmp_path: Path) -> None:
    first = CliRunner().invoke(command, ["write", str(tmp_path / "d"), "--path", "/etc/grafana/d"])
    assert first.exit_code == 0 and "8 of them changed" in first.output
    assert "0 of them changed" in CliRunner().invoke(command, ["write", str(tmp_path / "d"), "--path", "/etc/grafana/d"]).output
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == sorted([*(f"{uid}.json" for uid in MADE), "provider.yaml"])
    assert "path: /etc/grafana/d\n" in (tmp_path / "d" / "provider.yaml").read_text()
    assert json.loads((tmp_path / "d" / "trimtab-fleet.json").read_text()) == MADE["trimtab-fleet"]


def test_rules_are_written_with_the_runbooks_address(tmp_path: Path) -> None:
    argv = ["write", str(tmp_path), "--runbooks", "https://docs.example.org/r/", "--no-samples"]
    assert CliRunner().invoke(rules_command, argv).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trimtab.alerts.yml", "trimtab.recording.yml"]
    assert "https://docs.example.org/r/TrimtabWatchdog/" in (tmp_path / "trimtab.alerts.yml").read_text()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Missing, match="cannot be written"):
        write(tmp_path / "file", {"a": "b"})

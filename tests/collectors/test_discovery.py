"""The targets file: read again when it changes, refused with file and line, never forgotten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collectors.discovery import FILE_BAD, TARGETS, Discovery, Target, read
from trimtab.errors import SettingsError

GROUP = {
    "targets": ["127.0.0.1:8002"],
    "labels": {
        "fleet": "intent",
        "role": "triton",
        "target": "intent-v1-1",
        "pool": "stable",
        "version": "1",
        "__metrics_path__": "/stats/prometheus?usedonly",
        "__scheme__": "https",
        "zone": "a",
    },
}


def replace(file: Path, text: str) -> None:
    """As the fleet host does it: a new file under the same name."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


def test_reads_json_with_all_labels(tmp_path: Path) -> None:
    file = tmp_path / "targets.json"
    for text in (json.dumps([GROUP]), json.dumps([GROUP], indent=2), json.dumps([GROUP], separators=(",", ":"))):
        file.write_text(text)
        assert read(file) == [
            Target("intent-v1-1", "https://127.0.0.1:8002/stats/prometheus?usedonly", "intent", "triton", "stable", 1)
        ]


def test_reads_yaml_with_defaults(tmp_path: Path) -> None:
    file = tmp_path / "targets.yaml"
    file.write_text("- targets: ['localhost:1', '[::1]:2']\n  labels: {fleet: intent, role: app, version: 2}\n")
    assert read(file) == [
        Target("localhost:1", "http://localhost:1/metrics", "intent", "app", None, 2),
        Target("[::1]:2", "http://[::1]:2/metrics", "intent", "app", None, 2),
    ]
    file.write_text("[]")
    assert read(file) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "t.yaml:1: must be a list"),
        ("", "t.yaml:1: must be a list"),
        ("- targets: [", "t.yaml:"),
        ("- targets: ['a:1']\n  labels: {role: triton}\n", "t.yaml:2: 0.labels.fleet: missing"),
        ("- targets: ['a:1']\n  labels: {fleet: f, role: waiter}\n", "t.yaml:2: 0.labels.role"),
        ("- targets: ['a:1']\n  labels: {fleet: f, role: triton, pool: best}\n", "0.labels.pool"),
        ("- targets: ['a:1']\n  labels: {fleet: f, role: triton, version: one}\n", "0.labels.version"),
        ("- targets:\n  - http://a:1\n  labels: {fleet: f, role: app}\n", "t.yaml:2: 0.targets.0"),
        ("- targets:\n  - a\n  labels: {fleet: f, role: app}\n", "t.yaml:2: 0.targets.0"),
        ("- targets: ['a:99999']\n  labels: {fleet: f, role: app}\n", "0.targets"),
        ("- targets: ['a:1']\n  labels: {fleet: f, role: app, __scheme__: file}\n", "0.labels.__scheme__"),
        ("- targets: ['a:1']\n  labels: {fleet: f, role: app, __metrics_path__: metrics}\n", "0.labels.__metrics_path__"),
        ("- targets: ['a:1', 'b:1']\n  labels: {fleet: f, role: app, target: t}\n", "target 't' is given twice"),
        ("- labels: {fleet: f, role: app}\n", "0.targets: missing"),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        Discovery(file)
    assert said in str(caught.value)


def test_follows_the_file_and_keeps_the_last_good_one(tmp_path: Path) -> None:
    file = tmp_path / "targets.json"
    discovery = Discovery(file)
    assert discovery.targets == []
    assert discovery.problem == f"{file} is not there yet"
    assert not discovery.refresh()

    replace(file, json.dumps([GROUP]))
    assert discovery.refresh()
    assert [target.target for target in discovery.targets] == ["intent-v1-1"]
    assert discovery.problem is None
    assert FILE_BAD._value.get() == 0
    assert TARGETS._value.get() == 1
    assert not discovery.refresh()

    replace(file, '[{"targets": ["127.0.0.1:8002"], "lab')
    assert not discovery.refresh()
    assert str(file) in (discovery.problem or "")
    assert FILE_BAD._value.get() == 1
    assert len(discovery.targets) == 1

    file.unlink()
    assert not discovery.refresh()
    assert len(discovery.targets) == 1

    replace(file, json.dumps([GROUP]))
    assert not discovery.refresh()  # the same targets again
    assert discovery.problem is None

    replace(file, "[]")
    assert discovery.refresh()
    assert discovery.targets == []

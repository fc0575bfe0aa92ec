"""The rules as files that Prometheus and Alertmanager load."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import yaml

from dashboards.rules import findings, health, recording, recording_quality, slo
from dashboards.rules.model import RUNBOOKS, Alert, Record

HEADER = "# Written by `trimtab rules write`. Change the rules there, not here.\n"


def alerts() -> list[Alert]:
    """Every alert."""
    return [*slo.ALERTS, *findings.ALERTS, *health.ALERTS]


def records() -> list[Record]:
    """Every recording rule."""
    return [*recording.FLEETS, *recording.WINDOWED, *recording.VERSIONS, *recording.TARGETS, *recording_quality.QUALITY]


def files(runbooks: str = RUNBOOKS, samples: bool = True) -> dict[str, str]:
    """File name -> content: recording rules, alerts, and (with `samples`) a configuration for Prometheus and Alertmanager."""
    made = {"trimtab.recording.yml": _recording(), "trimtab.alerts.yml": _alerts(runbooks.rstrip("/"))}
    if samples:
        folder = resources.files("dashboards") / "samples"
        made |= {name: (folder / name).read_text() for name in ("prometheus.yml", "alertmanager.yml")}
    return made


def _recording() -> str:
    return _groups(
        [
            ("trimtab-fleets", None, [record.entry() for record in recording.FLEETS]),
            ("trimtab-versions", None, [record.entry() for record in recording.VERSIONS]),
            ("trimtab-targets", None, [record.entry() for record in recording.TARGETS]),
            ("trimtab-quality", None, [record.entry() for record in recording_quality.QUALITY]),
            ("trimtab-windows", "1m", [record.entry() for record in recording.WINDOWED]),
        ]
    )


def _alerts(runbooks: str) -> str:
    parts: Sequence[tuple[str, list[Alert]]] = (
        ("trimtab-slo", slo.ALERTS),
        ("trimtab-findings", findings.ALERTS),
        ("trimtab-health", health.ALERTS),
    )
    return _groups([(name, None, [alert.entry(runbooks) for alert in of]) for name, of in parts])


def _groups(groups: Sequence[tuple[str, str | None, list[dict[str, object]]]]) -> str:
    found = [{"name": name, **({"interval": every} if every else {}), "rules": rules} for name, every, rules in groups]
    return HEADER + yaml.safe_dump({"groups": found}, sort_keys=False, width=1000)

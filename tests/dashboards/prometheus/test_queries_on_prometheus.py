"""Each query and each rule returns data on a real Prometheus that scraped an incident: a recorded one, and the stack itself."""

from __future__ import annotations

import re
from typing import Any

import pytest

from autoscaler.operator.process import LEADS
from dashboards.queries import QUERIES
from dashboards.queries_adapters import ADAPTERS
from dashboards.queries_quality import QUALITY
from dashboards.rules.files import alerts, records
from dashboards.rules.recording_quality import QUALITY as RECORDED_QUALITY

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_NAME = re.compile(r"\b((?:trimtab|fleet|version|nv|envoy|DCGM|process)[a-zA-Z0-9_:]*[a-z0-9])\b(?=[{\[\s)])")

ONLY_ON_KUBERNETES = {LEADS._name}


def filled(expr: str) -> str:
    """The query as Grafana sends it with all fleets chosen."""
    return expr.replace("$fleet", "intent|other").replace("$__rate_interval", "1m")


@pytest.mark.parametrize("name", sorted(QUERIES.keys() - ADAPTERS.keys() - QUALITY.keys()))  # these have a test of their own
def test_every_query_returns_data(played: Any, name: str) -> None:
    query = QUERIES[name]
    found = played.prometheus.range(filled(query.expr), played.start, played.end)
    assert found, query.expr
    labels = set(re.findall(r"{{(\w+)}}", query.legend))
    assert labels <= {label for series in found for label in series["metric"]}, "the legend names labels that no series has"
    assert len(found) < 150


@pytest.mark.parametrize("name", [record.name for record in records() if record not in RECORDED_QUALITY])
def test_every_recording_rule_records(played: Any, name: str) -> None:
    found = played.prometheus.range(name, played.start, played.end)
    assert found
    assert all("fleet" in series["metric"] for series in found)
    if name.startswith("version:"):
        assert {series["metric"]["version"] for series in found} >= {"1", "2"}


def test_no_rule_fails(played: Any) -> None:
    rules = [rule for group in played.prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(records()) + len(alerts())
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_every_series_that_an_alert_names_exists(played: Any, alert: object) -> None:
    expr = re.sub(r"\bby \([^)]*\)|\bon \([^)]*\)", "", alert.expr)  # type: ignore[attr-defined]
    for name in set(_NAME.findall(expr)) - {"fleet", "version"} - ONLY_ON_KUBERNETES:
        assert played.prometheus.range(name, played.start, played.end), f"{name} in {expr}"


def test_the_watchdog_fires(played: Any) -> None:
    firing = played.prometheus.now('ALERTS{alertname="TrimtabWatchdog", alertstate="firing"}')
    assert len(firing) == 1


def test_labels_are_bounded(played: Any) -> None:
    """What the exporter shows for a fleet of six replicas, and that no label holds ids, times or words without end."""
    counts = played.prometheus.now(
        'sum by (__name__) (count by (__name__, fleet, job) ({__name__=~"trimtab_.+", part="metrics"}))'
    )
    assert {series["metric"]["__name__"]: float(series["value"][1]) for series in counts}
    total = played.prometheus.now('count({part="metrics", __name__=~"trimtab_.+"})')
    assert float(total[0]["value"][1]) < 400
    for series in played.prometheus.get(
        "series", **{"match[]": '{part="metrics", __name__=~"trimtab_.+"}', "start": played.start}
    ):
        assert not any(re.fullmatch(r"[0-9a-f]{16}", value) for value in series.values()), series


def test_a_canary_a_rollback_and_a_quarantine_are_seen(played: Any) -> None:
    ask = played.prometheus
    weights = ask.range('trimtab_pool_weight{pool="canary"}', played.start, played.end)
    assert {series["metric"]["version"] for series in weights} & {"2", "3"}
    marks = ask.range(filled(QUERIES["mark_findings"].expr), played.start, played.end)
    assert "replica_fault" in {series["metric"]["kind"] for series in marks}
    for action in ("rollback", "quarantine"):
        decided = ask.now(f'trimtab_fleet_decisions_total{{action="{action}", outcome="applied"}}')
        assert [float(series["value"][1]) for series in decided] >= [1.0]

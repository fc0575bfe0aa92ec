"""The whole system in containers: data in Prometheus, a bad version and a hang answered, people told.

One story in order, for it takes minutes to start: each test goes on from what the one before left.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.compose, pytest.mark.timeout(2000)]

ALL = {"collect", "detect", "autoscale", "metrics", "notify"}
QUERIES = [
    'rate(envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="intent"}[1m])',
    'nv_inference_request_success{fleet="intent"}',
    'trimtab_traffic_requests_total{outcome="ok"}',
    "DCGM_FI_DEV_GPU_TEMP",
    'trimtab_score{fleet="intent"}',
    'trimtab_pool_replicas{fleet="intent",phase="ready"}',
]
STOP_ONE = """
for comm in /proc/[0-9]*/comm; do
  if [ "$(cat "$comm")" = tritonserver ]; then kill -STOP "$(basename "$(dirname "$comm")")"; exit 0; fi
done
exit 1
"""


def acts(system: Any, words: str) -> list[dict[str, Any]]:
    """Notifications of acts in which these words stand."""
    told = [each for each in system.received("/notifications") if each["body"]["type"] == "io.trimtab.incident.act"]
    return [each for each in told if words in each["body"]["data"]["text"]]


def test_prometheus_sees_every_part(system: Any) -> None:
    def all_up() -> bool:
        return {each["metric"]["part"] for each in system.query('up{job="trimtab"} == 1')} == ALL

    system.until(all_up, f"{ALL} are scraped", 300)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_gives_data(system: Any, query: str) -> None:
    assert system.until(lambda: system.query(query), query, 600)


def test_the_rules_are_loaded_and_none_is_broken(system: Any) -> None:
    groups = httpx.get(f"{system.url('PROMETHEUS')}/api/v1/rules", timeout=30).json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {"recording", "alerting"} == {rule["type"] for rule in rules}
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def test_alertmanager_hears_prometheus(system: Any) -> None:
    def heard() -> bool:
        alerts = httpx.get(f"{system.url('ALERTMANAGER')}/api/v2/alerts", timeout=30).json()
        return any(alert["labels"]["alertname"] == "TrimtabWatchdog" for alert in alerts)

    system.until(heard, "the watchdog's alert", 120)


def test_the_gateway_answers_a_question_from_outside(system: Any) -> None:
    question = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["I lost my card"]}]}

    def answered() -> httpx.Response | None:
        answer = httpx.post(f"{system.url('GATEWAY')}/v2/models/intent/infer", json=question, timeout=60)
        return answer if answer.status_code == 200 else None

    answer = system.until(answered, "an answer", 120)
    assert answer.headers["x-trimtab-version"] == "1"
    assert answer.json()["outputs"]


def test_a_bad_version_is_rolled_back_and_told(system: Any) -> None:
    before = len(acts(system, "rolled back version 3"))
    system.compose("exec", "-T", "autoscaler", "trimtab", "release", "--version", "3")
    found = system.until(lambda: acts(system, "rolled back version 3")[before:], "a rollback is told", 300)
    assert all(each["signed"] for each in found)

    def pushed() -> bool:
        alerts = httpx.get(f"{system.url('ALERTMANAGER')}/api/v2/alerts", timeout=30).json()
        return any(alert["labels"]["alertname"] == "TrimtabVersion" for alert in alerts)

    system.until(pushed, "the incident at Alertmanager", 120)


def test_a_replica_that_hangs_is_quarantined_and_told(system: Any) -> None:
    before = len(acts(system, "quarantined"))
    system.compose("exec", "-T", "host", "bash", "-c", STOP_ONE)
    found = system.until(lambda: acts(system, "quarantined")[before:], "a quarantine is told", 300)
    assert all(each["signed"] for each in found)


def test_a_delivery_that_is_not_signed_is_refused(system: Any) -> None:
    assert httpx.post(f"{system.url('WEBHOOK')}/notifications", json={}, timeout=30).status_code == 401

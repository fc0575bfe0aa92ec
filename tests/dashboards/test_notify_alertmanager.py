"""A real Alertmanager: it takes what is pushed, knows it as one alert, and its own webhook looks like ours."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from dashboards.notify import formats
from dashboards.notify.formats import Told
from dashboards.notify.incidents import Incidents
from dashboards.notify.service import Notifier
from dashboards.notify.settings import IncidentSettings, NotifySettings, Receiver
from trimtab.memory_bus import MemoryBus
from trimtab.messages import FINDINGS

Make = Callable[..., Any]
PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
FLEET = 'a fleet/with "quotes" & 🚀'

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(PROGRAM is None, reason="needs Alertmanager: apt-get install prometheus-alertmanager"),
]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def alertmanager(hook: Make, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """Its URL, and the webhook that it notifies."""
    there = hook()
    config = tmp_path / "alertmanager.yml"
    config.write_text(
        "route: {receiver: hook, group_by: [alertname, fleet, incident], group_wait: 0s, group_interval: 1s}\n"
        f"receivers: [{{name: hook, webhook_configs: [{{url: '{there.url}', send_resolved: true}}]}}]\n"
    )
    port = _free_port()
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [str(PROGRAM), f"--config.file={config}", f"--storage.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
         "--cluster.listen-address="],
        stdout=log, stderr=log,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _until(lambda: _ready(url))
        yield url, there
    finally:
        process.terminate()
        process.wait(20)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_an_incident_is_one_alert_from_firing_to_resolved(alertmanager: tuple[str, Any], finding: Make) -> None:
    url, there = alertmanager
    bus = MemoryBus()
    bus.ensure_topics()
    ops = Receiver(name="am", format="alertmanager_api", url=f"{url}/api/v2/alerts", resend_seconds=0.5)
    stop = threading.Event()
    notifier = threading.Thread(target=Notifier(bus, IncidentSettings(), NotifySettings(receivers=[ops]), stop).run)
    notifier.start()
    producer = bus.producer()
    try:
        now = time.time()
        producer.send(FINDINGS, finding("f", now, fleet=FLEET))
        _until(lambda: _alerts(url))
        (alert,) = _alerts(url)
        assert alert["labels"]["fleet"] == FLEET
        assert alert["labels"]["alertname"] == "TrimtabVersion"
        assert alert["status"]["state"] == "active"
        ends = alert["endsAt"]
        _until(lambda: _alerts(url)[0]["endsAt"] > ends)  # it is sent again, so it does not end by itself
        producer.send(FINDINGS, finding("f", now + 1, fleet=FLEET, state="resolved"))
        _until(lambda: not _alerts(url))
        _until(lambda: [each.body["status"] for each in there.accepted][-1:] == ["resolved"])
    finally:
        stop.set()
        notifier.join(20)
    assert [each.body["status"] for each in there.accepted] == ["firing", "resolved"]

    # Our own webhook of version 4 has the shape of Alertmanager's.
    update = Incidents(IncidentSettings()).add(finding("f", now, fleet=FLEET))[0]
    ours, theirs = formats.alertmanager(Told(update, "am", update.text)), there.accepted[0].body
    assert set(ours) == set(theirs)
    assert set(ours["alerts"][0]) == set(theirs["alerts"][0])
    assert ours["version"] == theirs["version"]
    assert ours["groupLabels"].keys() == theirs["groupLabels"].keys()
    assert ours["alerts"][0]["endsAt"] == theirs["alerts"][0]["endsAt"]
    assert ours["groupKey"] == theirs["groupKey"].replace(theirs["groupLabels"]["incident"], update.incident.id)
    for time_of in (ours, theirs):
        assert datetime.fromisoformat(time_of["alerts"][0]["startsAt"])


def _alerts(url: str) -> list[Any]:
    found: list[Any] = httpx.get(f"{url}/api/v2/alerts", trust_env=False).json()
    return found


def _until(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)

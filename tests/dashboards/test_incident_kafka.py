"""The page of an incident from the topics of a real broker."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtab.bus import BusSettings, connect
from trimtab.messages import DECISIONS, FINDINGS, SCORES, STATES, Evidence, FleetState, PoolState, Score

Make = Callable[..., Any]


@pytest.mark.integration
def test_an_incident_is_told_from_the_topics(kafka: str, finding: Make, decision: Make, tmp_path: Path) -> None:
    fleet = f'a fleet/"{uuid.uuid4().hex[:6]}" 🚀'
    bus = connect(BusSettings(bootstrap=kafka))
    bus.ensure_topics()
    producer, now = bus.producer(), time.time()
    id = uuid.uuid4().hex[:16]
    evidence = Evidence(detector="peers", series="p99", observed=0.2, expected=0.004, score=0.99, threshold=0.9)
    found = finding(id, now, fleet=fleet, onset=now - 2, evidence=[evidence])
    producer.send(SCORES, Score(fleet=fleet, target="r3", time=now - 1, detector="peers", score=0.95))
    producer.send(FINDINGS, found)
    producer.send(DECISIONS, decision(f"d{id}", now + 0.1, fleet=fleet, because=[id], to={"weights": {"2": 100}}))
    pools = [PoolState(version=2, role="stable", weight=100, wanted=1)]
    producer.send(STATES, FleetState(fleet=fleet, time=now + 0.5, pools=pools))
    producer.flush()
    out = tmp_path / "incident.html"
    argv = [sys.executable, "-m", "trimtab", "incident", id, "--kafka", kafka, "--fleet", fleet, "--out", str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("rolled back version 3", "observed: traffic 100 % to version 2", "peers: p99 is 0.2, expected 0.004"):
        assert words in done.stdout
    assert "observed: traffic 100 % to version 2" in out.read_text()

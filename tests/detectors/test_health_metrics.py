"""The Flink job's health as a Prometheus page."""

import os
import urllib.request
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from detectors import health
from detectors.health_metrics import HealthMetrics


def page(tmp_path: Path, state: str) -> str:
    registry = CollectorRegistry()
    registry.register(HealthMetrics(lambda: state, tmp_path / "heartbeat", tmp_path / "checkpoints"))
    return generate_latest(registry).decode()


def test_what_has_not_happened_yet_has_no_sample(tmp_path: Path) -> None:
    said = page(tmp_path, "STARTING")
    assert "trimtab_detect_job_running 0.0" in said
    assert "\ntrimtab_detect_heartbeat_timestamp_seconds " not in said
    assert "\ntrimtab_detect_checkpoint_timestamp_seconds " not in said


def test_a_running_job_shows_its_heartbeat_and_its_newest_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "heartbeat").write_text("1700000000.5 7")
    chk = tmp_path / "checkpoints" / "run" / "chk-1"
    chk.mkdir(parents=True)
    (chk / "_metadata").write_bytes(bytes.fromhex("4960672d") + b"rest")
    os.utime(chk / "_metadata", (1_700_000_001.25, 1_700_000_001.25))
    said = page(tmp_path, "RUNNING")
    assert "trimtab_detect_job_running 1.0" in said
    assert "trimtab_detect_heartbeat_timestamp_seconds 1.7000000005e+09" in said
    assert "trimtab_detect_checkpoint_timestamp_seconds 1.70000000125e+09" in said


def test_the_page_is_served_while_the_job_is_not_healthy(tmp_path: Path) -> None:
    server = health.serve(health.Health(tmp_path / "heartbeat"), 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=5) as answer:
            assert answer.status == 200 and b"python_info" in answer.read()
    finally:
        server.shutdown()

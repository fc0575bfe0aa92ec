"""The documented sequence (docs/kubernetes.md): the whole system on an empty cluster, and what it survives."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

FLINK = """
import json, urllib.request
def get(path): return json.load(urllib.request.urlopen("http://localhost:8081" + path))
jobs = get("/jobs/overview")["jobs"]
jobs = [job for job in jobs if job["state"] == "RUNNING" and job["tasks"]["running"] == job["tasks"]["total"]]
print(json.dumps(get("/jobs/%s/checkpoints" % jobs[0]["jid"]) if jobs else None))
"""


def checkpoints() -> Any:
    """What Flink says of its checkpoints while all tasks of the job run, else None."""
    done = subprocess.run(
        ["kubectl", "exec", "-n", "trimtab", "deploy/trimtab-jobmanager", "-c", "submit", "--", "python", "-c", FLINK],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def test_the_documented_sequence_ends_with_a_fleet_that_serves(system: None, kubectl: Callable[..., str]) -> None:
    kubectl("wait", "-n", "trimtab-demo", "--for=condition=Ready", "modelfleet/intent", "--timeout=600s", patience=620)
    kubectl("rollout", "status", "-n", "trimtab", "deployment/trimtab-jobmanager", "--timeout=300s", patience=320)
    assert "True" in kubectl("get", "modelfleets", "-n", "trimtab-demo")


def test_a_lost_task_manager_and_a_lost_job_manager_go_on_from_a_checkpoint(
    system: None, kubectl: Callable[..., str], until: Callable[..., Any]
) -> None:
    until(lambda: (found := checkpoints()) and found["counts"]["completed"] > 0, "the job makes checkpoints", 300.0)
    kubectl("delete", "pod", "-n", "trimtab", "-l", "app.kubernetes.io/name=trimtab-taskmanager", "--wait=false")
    until(lambda: (found := checkpoints()) and found["latest"]["restored"], "the job is restored on another TaskManager", 300.0)
    kubectl("delete", "pod", "-n", "trimtab", "-l", "app.kubernetes.io/name=trimtab-jobmanager", "--grace-period=0", "--force")
    again = until(lambda: (found := checkpoints()) and found["latest"]["restored"] and found, "the job is submitted anew", 300.0)
    assert again["counts"]["restored"] >= 1

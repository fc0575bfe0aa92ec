"""A Flink cluster that runs elsewhere (on Kubernetes: JobManager and TaskManager pods), through its REST API."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import httpx

log = logging.getLogger(__name__)

HEARTBEAT = Path("/tmp/trimtab-heartbeat")  # noqa: S108 (a pod's own emptyDir)
"""Where the job's heartbeat lies on the TaskManager; nobody but a person looks there."""

_ENDED = {"FINISHED", "CANCELED", "FAILED"}


def make_room(address: str, name: str) -> None:
    """Wait for the cluster at `address` (host:port), and cancel every job of that name: an earlier submitter left it.

    Its checkpoints stay.
    """
    while True:
        try:
            answer = httpx.get(f"http://{address}/jobs/overview", timeout=3.0).raise_for_status().json()
            left = [job["jid"] for job in answer["jobs"] if job["name"] == name and job["state"] not in _ENDED]
            if not left:
                return
            for job in left:
                log.info("cancelling job %s of an earlier start", job)
                httpx.patch(f"http://{address}/jobs/{job}", params={"mode": "cancel"}, timeout=3.0)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            log.warning("Flink at %s does not answer yet (%s)", address, type(error).__name__)
        time.sleep(1.0)


def processes(address: str, job: str) -> bool:
    """Whether all tasks of the job run: restored, open, and reading."""
    try:
        answer = httpx.get(f"http://{address}/jobs/{job}", timeout=2.0).raise_for_status().json()
        return all(vertex["status"] == "RUNNING" for vertex in answer["vertices"])
    except (httpx.HTTPError, ValueError, KeyError):
        return False

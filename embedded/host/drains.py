"""How many requests a draining replica still has, from its own metrics."""

from __future__ import annotations

import httpx

PENDING = "nv_inference_pending_request_count"
TIMEOUT_SECONDS = 0.5


def waiting_requests(metrics_url: str) -> float | None:
    """Requests queued in the replica, or None when it does not say. Those being computed Triton finishes itself at SIGTERM."""
    try:
        answer = httpx.get(metrics_url, timeout=TIMEOUT_SECONDS, trust_env=False)
    except httpx.HTTPError:
        return None
    if answer.status_code != 200:
        return None
    try:
        values = [float(line.split()[-1]) for line in answer.text.splitlines() if line.startswith(PENDING)]
    except ValueError:
        return None
    return sum(values) if values else None

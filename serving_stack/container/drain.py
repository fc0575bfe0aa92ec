"""preStop hooks: a container ends when nobody needs it any more, and not later than the pod's grace period allows."""

from __future__ import annotations

import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable

from serving_stack.container.drills import processes
from serving_stack.container.envoy import DRAIN_SECONDS
from serving_stack.container.triton import METRICS_PORT
from serving_stack.gateway.place import ADMIN_PORT

MOST_SECONDS = 25.0
QUIET_SECONDS = 1.5
"""A replica without new or pending requests for so long has left the gateway: this takes well under half a second."""
SERVICE_SECONDS = 3.0
"""Nodes take so long to forget the address of a pod that leaves a Service; until then new connections still come."""
DEAF_TRIES = 3
"""Metrics pages in a row that do not answer: the replica hangs, and waiting would only keep its requests from others."""

_COUNTED = re.compile(r"^nv_inference_(request_success|request_failure|pending_request_count)\{[^}]*\} (\S+)", re.MULTILINE)


def drain_triton() -> None:
    """Return when no requests come and none is pending; kill a Triton that hangs, so that its requests are tried elsewhere."""
    if not wait_until_quiet(_triton_counts, time.monotonic, time.sleep):
        for number in processes("tritonserver"):
            os.kill(number, signal.SIGKILL)


def wait_until_quiet(
    counts: Callable[[], tuple[float, float] | None], now: Callable[[], float], sleep: Callable[[float], None]
) -> bool:
    """True when it is time to end in order, False when the replica hangs.

    `counts` gives (requests ended so far, requests pending), or None when the replica does not answer.
    """
    end = now() + MOST_SECONDS
    ended, quiet_since, deaf = float("nan"), now(), 0
    while now() < end:
        seen = counts()
        deaf = deaf + 1 if seen is None else 0
        if deaf >= DEAF_TRIES:
            return False
        if seen is not None:
            if seen[0] != ended or seen[1] > 0:
                ended, quiet_since = seen[0], now()
            elif now() - quiet_since >= QUIET_SECONDS:
                return True
        sleep(0.2)
    return True


def _triton_counts() -> tuple[float, float] | None:
    page = _get(f"http://127.0.0.1:{METRICS_PORT}/metrics")
    if page is None:
        return None
    ended = pending = 0.0
    for name, value in _COUNTED.findall(page):
        if name == "pending_request_count":
            pending += float(value)
        else:
            ended += float(value)
    return ended, pending


def drain_envoy() -> None:
    """Go on serving while the Service forgets this pod, then ask clients to close, and return when no connection is open."""
    admin = f"http://127.0.0.1:{ADMIN_PORT}"
    time.sleep(SERVICE_SECONDS)
    _get(f"{admin}/drain_listeners?graceful&skip_exit", post=True)
    end = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < end:
        if _open_requests(_get(f"{admin}/stats?filter=downstream_rq_active") or "") == 0 and end - time.monotonic() < 12:
            return
        time.sleep(0.2)


def _open_requests(page: str) -> int:
    return sum(int(line.split(": ")[1]) for line in page.splitlines() if ".downstream_rq_active: " in line)


def _get(url: str, post: bool = False) -> str | None:
    request = urllib.request.Request(url, method="POST" if post else "GET")  # noqa: S310 (loopback)
    try:
        with urllib.request.urlopen(request, timeout=1.0) as answer:  # noqa: S310
            return str(answer.read().decode())
    except OSError:
        return None

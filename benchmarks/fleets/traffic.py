"""Telemetry of many fleets once a second, each at its own moment of it.

    python -m benchmarks.fleets.traffic BOOTSTRAP PREFIX COUNT

A process of its own, so that its work is not in the way of the process that measures.
"""

from __future__ import annotations

import sys
import time

from trimtab.bus import BusSettings, connect
from trimtab.messages import TELEMETRY, Snapshot

RATE = 10.0
"""Requests per second of each fleet."""
_SLICES = 20


def page(fleet: str, now: float, since: float) -> Snapshot:
    """The gateway's counters of a fleet with steady traffic, all of it answered well by version 1."""
    count = float(int(RATE * (now - since)))
    cluster = f'envoy_cluster_name="{fleet}_v1"'
    series: dict[str, float | None] = {
        f'envoy_http_downstream_rq_total{{envoy_http_conn_manager_prefix="{fleet}"}}': count,
        f'envoy_cluster_upstream_rq_xx{{{cluster},envoy_response_code_class="2"}}': count,
        "envoy_server_uptime": now - since,
    }
    for bound in ("5", "25", "100", "250", "1000", "+Inf"):
        series[f'envoy_cluster_upstream_rq_time_bucket{{{cluster},le="{bound}"}}'] = 0.0 if bound == "5" else count
    return Snapshot(target="gateway", fleet=fleet, role="gateway", time=now, took=0.0, up=True, series=series)


def main(bootstrap: str, prefix: str, count: int) -> None:
    """Sends until it is ended."""
    producer, since = connect(BusSettings(bootstrap=bootstrap)).producer(), time.time()
    due = time.monotonic()
    while True:
        for part in range(_SLICES):
            for number in range(part, count, _SLICES):
                producer.send(TELEMETRY, page(f"{prefix}{number}", time.time(), since))
            due += 1 / _SLICES
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

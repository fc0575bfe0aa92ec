"""The metrics page of the traffic generator."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from serving_stack.traffic.tally import Result
from trimtab.errors import Unavailable
from trimtab.selfmetrics import metrics_host

LATENCY_BUCKETS = (
    0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0,
    3.0, 5.0, 7.5, 10.0, 15.0, 20.0,
)  # fmt: skip


class TrafficMetrics:
    """Counters of one run, in a registry of their own: two runs in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.scheduled = Counter(
            "trimtab_traffic_scheduled_total", "Requests whose time had come, sent or dropped.", registry=self.registry
        )
        self.in_flight = Gauge("trimtab_traffic_in_flight", "Requests sent and not yet answered.", registry=self.registry)
        self._requests = Counter(
            "trimtab_traffic_requests_total",
            "Requests that came to an end, by the version that answered (unknown: nobody did).",
            ["version", "outcome"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "trimtab_traffic_latency_seconds",
            "From the intended send time to the answer, of requests that were answered.",
            ["version"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )

    def count(self, result: Result) -> None:
        self._requests.labels(result.version, result.outcome).inc()
        if result.outcome != "error":
            self._latency.labels(result.version).observe(result.latency)

    def serve(self, port: int) -> None:
        """Serves the page from a thread, on `selfmetrics.metrics_host`; raises Unavailable when the port is taken."""
        host = metrics_host()
        try:
            start_http_server(port, host, self.registry)
        except OSError as error:
            raise Unavailable(f"cannot serve metrics on {host}:{port}: {error.strerror}") from error

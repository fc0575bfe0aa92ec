"""Settings of the collector: section ``collect``."""

from __future__ import annotations

from pydantic import Field

from collectors.exposition import Limits
from trimtab.settings import Section

KEEP: dict[str, tuple[str, ...]] = {
    "triton": ("nv_", "trimtab_"),
    "gateway": (
        "envoy_cluster_upstream_rq_active",
        "envoy_cluster_upstream_rq_completed",
        "envoy_cluster_upstream_rq_pending",
        "envoy_cluster_upstream_rq_per_try_timeout",
        "envoy_cluster_upstream_rq_retry",
        "envoy_cluster_upstream_rq_rx_reset",
        "envoy_cluster_upstream_rq_time",
        "envoy_cluster_upstream_rq_total",
        "envoy_cluster_upstream_rq_tx_reset",
        "envoy_cluster_upstream_rq_xx",
        "envoy_cluster_retry_upstream_rq",
        "envoy_cluster_upstream_cx_active",
        "envoy_cluster_upstream_cx_connect_fail",
        "envoy_cluster_upstream_cx_connect_timeout",
        "envoy_cluster_membership",
        "envoy_cluster_outlier_detection",
        "envoy_http_downstream_rq_active",
        "envoy_http_downstream_rq_total",
        "envoy_http_downstream_rq_xx",
        "envoy_http_downstream_cx_active",
        "envoy_server_live",
        "envoy_server_uptime",
    ),
    "gpu": ("DCGM_", "trimtab_gpu_"),
    "app": ("trimtab_",),
    "vllm": ("vllm:",),
    "node": (),
}


class CollectSettings(Section, name="collect"):
    """How targets are scraped and what waits for a broker that is away."""

    interval_seconds: float = Field(
        1.0, ge=0.1, le=60, description="Time between two scrapes of a target, in seconds. 1: faults are found within seconds."
    )
    deadline_ratio: float = Field(
        0.8,
        gt=0,
        le=0.95,
        description="Share of the interval after which a scrape is given up, so that scrapes of one target never overlap.",
    )
    max_body_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="Largest metrics page, in bytes. A bigger one counts as a failed scrape."
    )
    max_series: int = Field(20_000, ge=1, description="Most series on one page; more counts as a failed scrape.")
    max_label_length: int = Field(1024, ge=16, description="Longest metric name, label name or label value, in characters.")
    keep: dict[str, tuple[str, ...]] = Field(
        KEEP,
        description="Name prefixes of the series that are kept, by role; an empty list or a missing role keeps all. "
        "Default: what the detectors read; Envoy's whole page is many times that.",
    )
    spool_series: int = Field(
        1_000_000,
        ge=1000,
        description="How many values wait in memory while Kafka is away (about 100 bytes each). Past it the oldest snapshots are "
        "lost, counted and logged. Default: over ten minutes of ten targets.",
    )
    stop_seconds: float = Field(
        5.0, ge=0, description="How long a stop waits for the last snapshots to be delivered, in seconds."
    )

    @property
    def limits(self) -> Limits:
        """The limits of a page, as the parser takes them."""
        return Limits(self.max_body_bytes, self.max_series, self.max_label_length)

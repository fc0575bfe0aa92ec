"""Fleet: one fleet, its pools side by side, and what was decided when."""

from __future__ import annotations

from collections.abc import Sequence

from dashboards.boards.kind import PREFIX, Board
from dashboards.panels import Section, lines, rows


def sections() -> Sequence[Section]:
    """Rate, errors and duration per version; traffic and replicas; demand; scores, findings and decisions."""
    return [
        (
            "Rate, errors, duration: canary beside stable",
            [
                lines(
                    "Requests by version",
                    "By whose lot the request fell on, whoever answered it in the end.",
                    "reqps",
                    "fleet_requests_by_version",
                    span=8,
                ),
                lines("Failed by version", "Ratio over a minute.", "percentunit", "fleet_errors_by_version", span=8),
                lines(
                    "Request time by version",
                    "At the gateway, tries and waits included, beside the promised p99.",
                    "s",
                    "fleet_p50_by_version",
                    "fleet_p99_by_version",
                    "fleet_slo_latency",
                    span=8,
                ),
                lines(
                    "Wrong answers by version",
                    "Only where feedback with labels exists: the traffic generator knows the right answers.",
                    "percentunit",
                    "fleet_wrong_by_version",
                ),
                lines("Repeated tries", "Tries that failed and went to another replica.", "reqps", "fleet_tries_failed"),
            ],
        ),
        (
            "Traffic and replicas",
            [
                lines(
                    "Weights", "Share of the traffic of each pool.", "percentunit", "fleet_weights", stacked=True, most=1, span=8
                ),
                lines(
                    "Replicas wanted and in traffic",
                    "A gap means that replicas start, drain, are in quarantine or failed.",
                    "short",
                    "fleet_replicas_wanted",
                    "fleet_in_traffic",
                    span=8,
                ),
                lines("Replicas by phase", "As observed.", "short", "fleet_replicas_phase", stacked=True, span=8),
            ],
        ),
        (
            "Demand",
            [
                lines(
                    "Arrivals and capacity",
                    "Arrivals, what the replicas in traffic can serve, and what the most allowed replicas could.",
                    "reqps",
                    "fleet_demand",
                    "fleet_capacity",
                    "fleet_capacity_most",
                    span=24,
                ),
            ],
        ),
        (
            "What Trimtab thinks and does",
            [
                lines(
                    "Strongest score per detector",
                    "0..1; 0.999 is one tick in a thousand.",
                    "none",
                    "fleet_scores",
                    most=1,
                    span=8,
                ),
                rows("Open findings", "What fires now, and on whom.", "none", "fleet_findings", hide=("Value",), span=8),
                lines("Decisions", "Applied, refused and failed.", "short", "fleet_decisions", stacked=True, span=8),
            ],
        ),
    ]


BOARD = Board(
    f"{PREFIX}fleet",
    "Trimtab / Fleet",
    "One fleet: rate, errors and duration per version, traffic, replicas, demand, scores and decisions.",
    sections,
    one_fleet=True,
    span="now-1h",
)

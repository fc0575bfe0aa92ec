"""Fleets: all of them at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from dashboards.boards.kind import PREFIX, Board
from dashboards.panels import GOOD_AT_ZERO, Section, lines, number, rows

_BUDGET = ((None, "red"), (0, "orange"), (0.25, "green"))
_OF_LIMIT = ((None, "green"), (1, "red"))


def sections() -> Sequence[Section]:
    """What matters now, then promises, demand, and what Trimtab found and did."""
    return [
        (
            "Now",
            [
                number("Open findings", "Warnings and worse that fire now.", "short", "fleets_open_total", colours=GOOD_AT_ZERO),
                number(
                    "Error budget left, 3 days",
                    "What is left of the allowed failures of the last 3 days. Below zero the promise was broken.",
                    "percentunit",
                    "fleets_budget_left",
                    span=8,
                    colours=_BUDGET,
                ),
                number("Wanted version", "The version that the owner wants to serve.", "none", "fleets_wanted_version", span=6),
                number(
                    "Hands off",
                    "1 where the owner has paused Trimtab or lets it only say what it would do.",
                    "none",
                    "fleets_hands_off",
                    span=6,
                    colours=GOOD_AT_ZERO,
                ),
            ],
        ),
        (
            "What users were promised",
            [
                lines(
                    "Failed requests of the allowed", "1 is the limit.", "none", "fleets_error_of_slo", limits=_OF_LIMIT, span=8
                ),
                lines("p99 of the promised", "1 is the limit.", "none", "fleets_p99_of_slo", limits=_OF_LIMIT, span=8),
                lines("p99", "Request time at the gateway, tries and waits included.", "s", "fleets_p99", span=8),
            ],
        ),
        (
            "Demand and capacity",
            [
                lines("Requests", "What arrives at the gateway.", "reqps", "fleets_requests", span=8),
                lines(
                    "Demand of capacity",
                    "Arrivals over what the replicas in traffic can serve within the promise.",
                    "percentunit",
                    "fleets_demand_of_capacity",
                    limits=_OF_LIMIT,
                    span=8,
                ),
                lines("Ready replicas", "Over all pools.", "short", "fleets_replicas_ready", span=8),
            ],
        ),
        (
            "Trimtab",
            [
                rows(
                    "Findings by kind",
                    "Open now, by kind and severity.",
                    "short",
                    "fleets_findings_open",
                    colours=GOOD_AT_ZERO,
                ),
                lines("Acts in the last hour", "Applied decisions.", "short", "fleets_decisions_hour", stacked=True),
                lines("Failed requests", "Ratio over 5 minutes, after all tries.", "percentunit", "fleets_error_ratio", span=24),
            ],
        ),
    ]


BOARD = Board(
    f"{PREFIX}fleets", "Trimtab / Fleets", "All fleets at a glance: promises, demand, capacity, open findings.", sections
)

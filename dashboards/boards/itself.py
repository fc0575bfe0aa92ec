"""Trimtab itself: is the watchman awake?"""

from __future__ import annotations

from collections.abc import Sequence

from dashboards.boards.kind import PREFIX, Board
from dashboards.panels import GOOD_AT_ZERO, Section, lines, number, rows

_UP = ((None, "red"), (1, "green"))


def sections() -> Sequence[Section]:
    """Parts, then along the flow: scrapes, Kafka, Flink, autoscaler."""
    return [
        (
            "Parts",
            [
                number(
                    "Parts that answer",
                    "1 for each process that Prometheus can scrape, the operator included.",
                    "none",
                    "self_up",
                    span=12,
                    colours=_UP,
                ),
                rows("Versions", "How many processes run which version.", "short", "self_builds", height=4),
                lines("Memory", "Resident.", "bytes", "self_memory"),
                lines("Processor", "Seconds per second.", "percentunit", "self_cpu"),
            ],
        ),
        (
            "Scrapes",
            [
                lines("Scrapes by result", "A second.", "cps", "self_scrapes", span=8),
                lines("Scrape time", "99th percentile per role.", "s", "self_scrape_seconds", span=8),
                lines("Targets", "In the targets file.", "short", "self_targets", span=8),
            ],
        ),
        (
            "Kafka",
            [
                lines(
                    "Lag",
                    "Records that a group has not committed. The Flink job commits at its checkpoints.",
                    "short",
                    "self_lag",
                    span=8,
                ),
                lines(
                    "Age of the newest message",
                    "Per fleet and topic; findings and decisions come when there are some.",
                    "s",
                    "self_freshness",
                    span=8,
                ),
                lines("Waiting in the spool", "Snapshots that Kafka has not taken yet.", "short", "self_spool", span=8),
                lines("Lost", "Snapshots dropped because Kafka was away too long.", "short", "self_lost"),
                lines("Rejected", "Messages that nobody could read.", "short", "self_rejected"),
            ],
        ),
        (
            "Detection on Flink",
            [
                number("Job runs", "1 while Flink says so.", "none", "self_job_running", span=8, height=8, colours=_UP),
                lines("Age of the heartbeat", "Since a tick came through the whole job.", "s", "self_heartbeat_age", span=8),
                lines("Age of the checkpoint", "Of the newest completed one.", "s", "self_checkpoint_age", span=8),
            ],
        ),
        (
            "Autoscaler",
            [
                lines(
                    "Operator",
                    "On Kubernetes exactly one leads. Elsewhere there is no operator: 0.",
                    "short",
                    "self_operator_leads",
                    "self_operator_fleets",
                    span=6,
                ),
                lines("Step", "99th percentile from the first record to the accepted plan.", "s", "self_step_seconds", span=6),
                lines("From finding to act", "95th percentile of the last hour.", "s", "self_act_after_seconds", span=6),
                lines("Acts that failed", "Since the exporter's start.", "short", "self_acts_failed", span=6),
                number(
                    "Left out of these metrics",
                    "Because a limit on labels was reached.",
                    "short",
                    "self_left_out",
                    span=24,
                    colours=GOOD_AT_ZERO,
                ),
            ],
        ),
    ]


BOARD = Board(f"{PREFIX}itself", "Trimtab / Trimtab itself", "Lag, scrapes, Flink, checkpoints, autoscaler, operator.", sections)

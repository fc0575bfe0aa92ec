"""Detectors: what they say, whether they are calibrated, and how often they are wrong."""

from __future__ import annotations

from collections.abc import Sequence

from dashboards.boards.kind import PREFIX, Board
from dashboards.panels import Section, heat, lines, number, rows

_BUDGET = ((None, "green"), (1, "orange"), (20, "red"))


def sections() -> Sequence[Section]:
    """Scores against the alarm; budget and drift; silence and models; what came of it."""
    return [
        (
            "Scores",
            [
                lines(
                    "Strongest score per detector",
                    "0..1; unknown while a detector warms up. The alarm is where a learned detector counts as evidence.",
                    "none",
                    "detector_scores",
                    "detector_alarm",
                    most=1,
                    span=24,
                    height=10,
                ),
                heat(
                    "The ensemble's score over targets",
                    "Most should be low; a dark band on top is many sick targets.",
                    "none",
                    "detector_ensemble",
                ),
                rows("The 20 strongest scores now", "Who looks odd to whom.", "none", "detector_worst"),
            ],
        ),
        (
            "Calibration",
            [
                lines(
                    "False-alarm budget used",
                    "How often a detector is alarmed, over how often it should be on a healthy fleet. 1 is as promised.",
                    "none",
                    "detector_false_alarm_budget",
                    limits=_BUDGET,
                    span=8,
                ),
                lines(
                    "Drift",
                    "Mean of one minus the score over an hour: 0.5 for calibrated scores, less as normal moves away.",
                    "none",
                    "detector_drift",
                    most=1,
                    span=8,
                ),
                lines(
                    "Tails of the ensemble",
                    "Scores with a tail probability of at most so much.",
                    "short",
                    "detector_tails",
                    span=8,
                ),
            ],
        ),
        (
            "Alive",
            [
                lines("Scores a second", "Per detector.", "cps", "detector_rate", span=8),
                lines("Silence", "Age of a detector's last score.", "s", "detector_silence", span=8),
                lines(
                    "Age of the model",
                    "Since the end of the telemetry that it was trained on.",
                    "s",
                    "detector_model_age",
                    span=8,
                ),
            ],
        ),
        (
            "What came of it",
            [
                number("Findings in a day", "By kind.", "short", "detector_findings_day", span=12, height=6),
                rows(
                    "Faults that ended in a day, with an act or without",
                    "A fault that ended without an act was harmless, healed by itself, or was a false alarm.",
                    "short",
                    "detector_unanswered_day",
                    height=6,
                ),
            ],
        ),
    ]


BOARD = Board(
    f"{PREFIX}detectors", "Trimtab / Detectors", "Scores, thresholds, false-alarm budget, drift, age of the models.", sections
)

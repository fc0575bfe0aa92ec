"""Quality: what the answers are like, version beside version, and not only how fast they come."""

from __future__ import annotations

from collections.abc import Sequence

from dashboards.boards.kind import PREFIX, Board
from dashboards.panels import Section, lines


def sections() -> Sequence[Section]:
    """Right and wrong where it is known; confidence; classes; texts."""
    return [
        (
            "Right and wrong, where the labels became known",
            [
                lines(
                    "Accuracy by feedback",
                    "Over an hour, with its 95 % interval (Wilson). Unknown where nobody told the right labels.",
                    "percentunit",
                    "quality_accuracy",
                    "quality_accuracy_low",
                    "quality_accuracy_high",
                    most=1,
                    span=16,
                ),
                lines(
                    "Labels told",
                    "Per second, to the version that had answered.",
                    "cps",
                    "quality_feedback",
                    stacked=True,
                    span=8,
                ),
            ],
        ),
        (
            "Confidence",
            [
                lines(
                    "Mean confidence",
                    "A version that is less sure than the one beside it sees other texts, or knows less.",
                    "percentunit",
                    "quality_confidence",
                    most=1,
                    span=8,
                ),
                lines(
                    "Confidence, median and the lowest tenth",
                    "From the histogram, whose buckets are a tenth wide below 0.9.",
                    "percentunit",
                    "quality_confidence_p10",
                    "quality_confidence_p50",
                    most=1,
                    span=8,
                ),
                lines(
                    "Unsure answers", "Share with a confidence of at most 0.5.", "percentunit", "quality_unsure", most=1, span=8
                ),
            ],
        ),
        (
            "Classes",
            [
                lines(
                    "Share of each class",
                    "The most frequent ones; a replica adds up all others.",
                    "percentunit",
                    "quality_classes",
                    most=1,
                    span=16,
                ),
                lines(
                    "Shift of classes",
                    "How far a version's classes are from those of the fleet over six hours: 0 the same, 1 nothing in common. "
                    "One version that moves is the version; all together is the traffic.",
                    "percentunit",
                    "quality_class_shift",
                    most=1,
                    span=8,
                ),
            ],
        ),
        (
            "Texts and batches",
            [
                lines(
                    "Tokens of a text",
                    "Of those that were answered.",
                    "short",
                    "quality_tokens_p50",
                    "quality_tokens_p99",
                    span=8,
                ),
                lines("Refused texts", "By why: the client's own fault.", "reqps", "quality_refused", stacked=True, span=8),
                lines("Read only in part", "Share of the answered texts.", "percentunit", "quality_truncated", most=1, span=8),
                lines("Texts in a run", "How many share a run of the network.", "short", "quality_batch"),
                lines("Padding", "Share of the computed tokens that are none.", "percentunit", "quality_padding", most=1),
            ],
        ),
    ]


BOARD = Board(
    f"{PREFIX}quality",
    "Trimtab / Quality",
    "What the answers are like: accuracy by feedback, confidence, classes, texts, version beside version.",
    sections,
    one_fleet=True,
)

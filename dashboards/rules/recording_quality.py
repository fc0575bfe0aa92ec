"""Recording rules of what answers are like, added up over the replicas of a version.

Each replica has some fifty such series. A week of those of hundreds of replicas is too much for a panel; of a version it is not.
"""

from __future__ import annotations

from dashboards.rules.model import Record

_OF = 'role="triton"'
_COUNTED: dict[str, tuple[str, str]] = {
    "confidence_bucket": ("confidence_bucket", "le"),
    "confidence_sum": ("confidence_sum", ""),
    "confidence_count": ("confidence_count", ""),
    "answers": ("answers_total", "class"),
    "tokens_bucket": ("tokens_bucket", "le"),
    "tokens_sum": ("tokens_sum", ""),
    "tokens_count": ("tokens_count", ""),
    "refused": ("refused_total", "reason"),
    "truncated": ("truncated_total", ""),
    "runs": ("runs_total", ""),
    "padded_tokens": ("padded_tokens_total", ""),
    "feedback": ("feedback_total", "outcome"),
}
"""What is recorded -> the metric without its prefix, and the label that is kept beside the version."""


def _sum(operation: str, name: str, window: str, label: str) -> str:
    kept = f"fleet, version, {label}" if label else "fleet, version"
    return f"sum by ({kept}) ({operation}(trimtab_model_{name}{{{_OF}}}[{window}]))"


QUALITY: list[Record] = [
    *(
        Record(f"version:model_{recorded}:rate1m", _sum("rate", name, "1m", label))
        for recorded, (name, label) in _COUNTED.items()
    ),
    # Counts, not a mean rate: how wide the interval is depends on how many labels there were.
    Record("version:model_feedback:increase1h", _sum("increase", "feedback_total", "1h", "outcome")),
    Record("fleet:model_answers:rate6h", "sum by (fleet, class) (avg_over_time(version:model_answers:rate1m[6h]))"),
]

"""The PromQL queries of the dashboard of quality, by name: (query, legend). They read what is recorded per version.

So a canary is seen beside the stable version, and replicas add no series.
"""

from __future__ import annotations

_OF = 'fleet=~"$fleet"'
_EACH = "fleet, version"


def _version(name: str, more: str = "") -> str:
    return f"version:model_{name}:rate1m{{{_OF}{more}}}"


def _per(name: str, all_of: str, more: str = "") -> str:
    """How much of `name` there is for one of `all_of`; unknown where there is none of those."""
    return f"sum by ({_EACH}) ({_version(name, more)}) / ({_version(all_of)} > 0)"


def _quantile(share: float, name: str) -> str:
    return f"histogram_quantile({share}, {_version(f'{name}_bucket')})"


def _feedback(more: str = "") -> str:
    return f"sum by ({_EACH}) (version:model_feedback:increase1h{{{_OF}{more}}})"


_RIGHT, _TOLD = _feedback(', outcome="right"'), _feedback()
_P = f"({_RIGHT} / ({_TOLD} > 0))"
_Z = 1.959964


def _wilson(sign: str) -> str:
    """A bound of the 95 % interval of the accuracy that feedback says: Wilson, J. Am. Stat. Assoc. 22 (1927)."""
    spread = f"{_Z} * sqrt(({_P} * (1 - {_P}) + {_Z**2 / 4:.6f} / {_TOLD}) / {_TOLD})"
    return f"({_P} + {_Z**2 / 2:.6f} / {_TOLD} {sign} {spread}) / (1 + {_Z**2:.6f} / {_TOLD})"


_SHARES = f"{_version('answers')} / on ({_EACH}) group_left () (sum by ({_EACH}) ({_version('answers')}) > 0)"
_USUAL = (
    f"fleet:model_answers:rate6h{{{_OF}}} / on (fleet) group_left () (sum by (fleet) (fleet:model_answers:rate6h{{{_OF}}}) > 0)"
)
_NAME = "version {{version}}"

QUALITY: dict[str, tuple[str, str]] = {
    "quality_accuracy": (_P, f"{_NAME} right"),
    "quality_accuracy_low": (_wilson("-"), f"{_NAME} at least"),
    "quality_accuracy_high": (_wilson("+"), f"{_NAME} at most"),
    "quality_feedback": (_version("feedback"), f"{_NAME} {{{{outcome}}}}"),
    "quality_confidence": (_per("confidence_sum", "confidence_count"), _NAME),
    "quality_confidence_p10": (_quantile(0.1, "confidence"), f"{_NAME} p10"),
    "quality_confidence_p50": (_quantile(0.5, "confidence"), f"{_NAME} p50"),
    "quality_unsure": (_per("confidence_bucket", "confidence_count", ', le="0.5"'), _NAME),
    "quality_classes": (_SHARES, f"{_NAME} {{{{class}}}}"),
    # Half the sum of differences between a version's shares and the fleet's over six hours: 0 the same, 1 nothing in common.
    "quality_class_shift": (
        f"0.5 * sum by ({_EACH}) (abs({_SHARES} - on (fleet, class) group_left () ({_USUAL})))",
        _NAME,
    ),
    "quality_tokens_p50": (_quantile(0.5, "tokens"), f"{_NAME} p50"),
    "quality_tokens_p99": (_quantile(0.99, "tokens"), f"{_NAME} p99"),
    "quality_refused": (_version("refused"), f"{_NAME} {{{{reason}}}}"),
    "quality_truncated": (_per("truncated", "tokens_count"), _NAME),
    "quality_batch": (_per("tokens_count", "runs"), _NAME),
    # A run is counted before its answers are: within a moment there can be more tokens than places for them.
    "quality_padding": (f"clamp_min(1 - {_per('tokens_sum', 'padded_tokens')}, 0)", _NAME),
}
"""A test runs each of them against a Prometheus that scrapes real replicas of two versions."""

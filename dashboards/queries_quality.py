"""The PromQL queries of the dashboard of quality, by name: (query, legend). They read the replicas' own pages.

Everything is added up per version: a canary is seen beside the stable version, and replicas add no series.
"""

from __future__ import annotations

_OF = 'fleet=~"$fleet", role="triton"'
_RATE = "[$__rate_interval]"


def _rate(name: str, by: str = "", more: str = "") -> str:
    labels = f"fleet, version{', ' if by else ''}{by}"
    return f"sum by ({labels}) (rate(trimtab_model_{name}{{{_OF}{more}}}{_RATE}))"


def _per(name: str, all_of: str) -> str:
    """How much of `name` there is for one of `all_of`; unknown where there is none of those."""
    return f"{_rate(name)} / ({_rate(all_of)} > 0)"


def _quantile(share: float, name: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{name}_bucket', 'le')})"


def _up_to(bound: str) -> str:
    """The share of answers whose confidence is at most `bound`."""
    low = _rate("confidence_bucket", more=f', le="{bound}"')
    return f"{low} / ({_rate('confidence_count')} > 0)"


def _feedback(more: str = "") -> str:
    return f"sum by (fleet, version) (increase(trimtab_model_feedback_total{{{_OF}{more}}}[1h]))"


_RIGHT, _TOLD = _feedback(', outcome="right"'), _feedback()
_P = f"({_RIGHT} / ({_TOLD} > 0))"
_Z2 = 1.959964**2


def _wilson(sign: str) -> str:
    """A bound of the 95 % interval of the accuracy that feedback says: Wilson, J. Am. Stat. Assoc. 22 (1927)."""
    spread = f"1.959964 * sqrt(({_P} * (1 - {_P}) + {_Z2 / 4:.6f} / {_TOLD}) / {_TOLD})"
    return f"({_P} + {_Z2 / 2:.6f} / {_TOLD} {sign} {spread}) / (1 + {_Z2:.6f} / {_TOLD})"


_VERSION = "version {{version}}"

QUALITY: dict[str, tuple[str, str]] = {
    "quality_accuracy": (_P, f"{_VERSION} right"),
    "quality_accuracy_low": (_wilson("-"), f"{_VERSION} at least"),
    "quality_accuracy_high": (_wilson("+"), f"{_VERSION} at most"),
    "quality_feedback": (_rate("feedback_total", "outcome"), f"{_VERSION} {{{{outcome}}}}"),
    "quality_confidence": (_per("confidence_sum", "confidence_count"), _VERSION),
    "quality_confidence_p10": (_quantile(0.1, "confidence"), f"{_VERSION} p10"),
    "quality_confidence_p50": (_quantile(0.5, "confidence"), f"{_VERSION} p50"),
    "quality_unsure": (_up_to("0.5"), f"{_VERSION} up to 0.5"),
    "quality_classes": (
        f"{_rate('answers_total', 'class')} / on (fleet, version) group_left () ({_rate('answers_total')} > 0)",
        f"{_VERSION} {{{{class}}}}",
    ),
    "quality_class_shift": (
        # Half the sum of differences between a version's shares now and the fleet's over six hours: 0 the same, 1 disjoint.
        f"0.5 * sum by (fleet, version) (abs({_rate('answers_total', 'class')}"
        f" / on (fleet, version) group_left () ({_rate('answers_total')} > 0)"
        f" - on (fleet, class) group_left ()"
        f" (sum by (fleet, class) (increase(trimtab_model_answers_total{{{_OF}}}[6h]))"
        f" / on (fleet) group_left () (sum by (fleet) (increase(trimtab_model_answers_total{{{_OF}}}[6h])) > 0))))",
        _VERSION,
    ),
    "quality_tokens_p50": (_quantile(0.5, "tokens"), f"{_VERSION} p50"),
    "quality_tokens_p99": (_quantile(0.99, "tokens"), f"{_VERSION} p99"),
    "quality_refused": (_rate("refused_total", "reason"), f"{_VERSION} {{{{reason}}}}"),
    "quality_truncated": (_per("truncated_total", "tokens_count"), _VERSION),
    "quality_batch": (_per("tokens_count", "runs_total"), _VERSION),
    "quality_padding": (f"clamp_min(1 - {_per('tokens_sum', 'padded_tokens_total')}, 0)", _VERSION),
}
"""A test runs each of them against a Prometheus that scrapes real replicas of two versions."""

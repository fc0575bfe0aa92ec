"""Multi-window, multi-burn-rate alerts on what users were promised, per fleet.

A burn rate of 1 uses the budget of 30 days in 30 days. An alert needs both windows: the long one shows that it matters, the
short one that it still goes on. Errors: the ratio of failed requests against the budget. Latency: the promise is that 99 % are
faster than p99, so a burn rate b means that the (1 - b/100)-quantile is above it, which works for every promised latency.
"""

from __future__ import annotations

from dataclasses import dataclass

from dashboards.rules.model import Alert, Urgency
from dashboards.rules.recording import error_ratio, slow_buckets

LATENCY_BUDGET = 0.01
"""The promise is a 99th percentile: one request in a hundred may be slower."""


@dataclass(frozen=True)
class Burn:
    """A burn rate that must be seen in both windows."""

    rate: float
    long: str
    short: str


FAST = (Burn(14.4, "1h", "5m"), Burn(6, "6h", "30m"))
SLOW = (Burn(3, "1d", "2h"), Burn(1, "3d", "6h"))


def _errors(burns: tuple[Burn, ...]) -> str:
    def over(window: str, rate: float) -> str:
        return f"{error_ratio(window)} > on (fleet) ({rate:g} * trimtab_slo_error_ratio)"

    return "\nor\n".join(f"({over(burn.long, burn.rate)} and {over(burn.short, burn.rate)})" for burn in burns)


def _latency(burns: tuple[Burn, ...]) -> str:
    def over(window: str, rate: float) -> str:
        quantile = f"{1 - rate * LATENCY_BUDGET:g}"
        return f"histogram_quantile({quantile}, {slow_buckets(window)}) / 1000 > on (fleet) trimtab_slo_latency_seconds"

    return "\nor\n".join(f"({over(burn.long, burn.rate)} and {over(burn.short, burn.rate)})" for burn in burns)


def _alert(what: str, expr: str, urgency: Urgency, hold: str, words: str, pace: str, value: str) -> Alert:
    end = "in days" if urgency == "critical" else "before its end"
    return Alert(
        name=f"Trimtab{what}",
        expr=expr,
        urgency=urgency,
        hold=hold,
        summary=f"Fleet {{{{ $labels.fleet }}}}: {words}, {pace}",
        description=f"{value} At this pace the budget of 30 days is gone {end}.",
    )


_FAILED = "{{ $value | humanizePercentage }} of the requests failed in the long window."
_WAITED = (
    "The share of requests that may be slower than promised is used up: their quantile is at {{ $value | humanizeDuration }}."
)

ALERTS: list[Alert] = [
    _alert("ErrorBudgetBurnFast", _errors(FAST), "critical", "1m", "requests fail", "fast enough to wake somebody", _FAILED),
    _alert("ErrorBudgetBurnSlow", _errors(SLOW), "warning", "15m", "requests fail", "slowly but too often", _FAILED),
    _alert(
        "LatencyBudgetBurnFast", _latency(FAST), "critical", "1m", "requests are slow", "fast enough to wake somebody", _WAITED
    ),
    _alert("LatencyBudgetBurnSlow", _latency(SLOW), "warning", "15m", "requests are slow", "slowly but too often", _WAITED),
]

"""The PromQL queries of the dashboard of adapters, by name: (query, legend). They read the replicas' own pages."""

from __future__ import annotations

_OF = 'fleet=~"$fleet", role="triton"'
_RATE = "[$__rate_interval]"
_HIT, _KNOWN = ', result="hit"', ', result=~"hit|miss|overload"'


def _rate(name: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate(trimtab_{name}{{{_OF}{more}}}{_RATE}))"


def _quantile(share: float) -> str:
    return f"histogram_quantile({share}, {_rate('adapters_load_seconds_bucket', 'le, version')})"


ADAPTERS: dict[str, tuple[str, str]] = {
    "adapters_hit_ratio": (
        f"{_rate('adapters_requests_total', 'version', _HIT)} / ({_rate('adapters_requests_total', 'version', _KNOWN)} > 0)",
        "version {{version}}",
    ),
    "adapters_requests": (_rate("adapters_requests_total", "result"), "{{result}}"),
    "adapters_load_p50": (_quantile(0.5), "version {{version}} p50"),
    "adapters_load_p99": (_quantile(0.99), "version {{version}} p99"),
    "adapters_moved": (_rate("adapters_moved_bytes_total", "why"), "{{why}}"),
    "adapters_loads": (_rate("adapters_loads_total", "why"), "{{why}}"),
    "adapters_load_failures": (_rate("adapters_load_failures_total", "why"), "{{why}}"),
    "adapters_evictions": (_rate("adapters_evictions_total", "version"), "version {{version}} left"),
    "adapters_refusals": (_rate("adapters_refusals_total", "version"), "version {{version}} not kept"),
    "adapters_held_ratio": (
        f"trimtab_adapters_held_bytes{{{_OF}}} / trimtab_adapters_limit_bytes{{{_OF}}}",
        "{{target}}",
    ),
    "adapters_held": (f"trimtab_adapters_held{{{_OF}}}", "{{target}}"),
    "adapters_popular": (
        f"topk(10, avg by (adapter) (trimtab_adapter_request_ratio{{{_OF}}}))",
        "{{adapter}}",
    ),
    "adapters_answers": (_rate("adapter_answers_total", "adapter, version"), "{{adapter}} version {{version}}"),
    "adapters_confidence": (
        f"{_rate('adapter_confidence_sum', 'adapter, version')} / ({_rate('adapter_answers_total', 'adapter, version')} > 0)",
        "{{adapter}} version {{version}}",
    ),
}
"""A test runs each of them against a Prometheus that scrapes a real replica of a set."""

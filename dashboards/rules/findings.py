"""Alerts on findings and decisions: a person is told when Trimtab's cure does not come or does not help.

A finding that Trimtab answers within its time is no reason to wake anybody; it is on the dashboards and in the webhooks.
"""

from __future__ import annotations

from dashboards.rules.model import Alert

_WHERE = "fleet {{ $labels.fleet }}, {{ $labels.subject }}{{ with $labels.version }} version {{ . }}{{ end }}"


def _open(kinds: str) -> str:
    return f'max by (fleet, kind, subject, version) (trimtab_finding_firing{{kind=~"{kinds}"}}) > 0'


ALERTS: list[Alert] = [
    Alert(
        "TrimtabVersionRegression",
        _open("version_regression|quality_shift"),
        "critical",
        f"A version does harm and is still there: {_WHERE}",
        "{{ $labels.kind }} has been open for 3 minutes; a rollback takes seconds. It was refused, failed, or did not help.",
        hold="3m",
    ),
    Alert(
        "TrimtabReplicaFault",
        _open("replica_fault"),
        "warning",
        f"A replica is sick and not replaced: {_WHERE}",
        "The finding has been open for 5 minutes. The quarantine budget may be used up, or the replacement does not come up.",
        hold="5m",
    ),
    Alert(
        "TrimtabGpuFault",
        _open("gpu_fault"),
        "warning",
        f"A GPU is sick: {_WHERE}",
        "Trimtab takes its replica out of traffic; the card needs a person: a reset, a drained node, or a new one.",
        hold="2m",
    ),
    Alert(
        "TrimtabDependencyFault",
        _open("dependency_fault"),
        "critical",
        f"All replicas look sick together: {_WHERE}",
        "What they share is at fault, so Trimtab holds: neither scaling nor a quarantine would help.",
        hold="2m",
    ),
    Alert(
        "TrimtabTelemetryGap",
        _open("telemetry_gap"),
        "warning",
        f"Telemetry is missing, stale or frozen: {_WHERE}",
        "Trimtab neither scales down nor rolls back while it cannot see.",
        hold="2m",
    ),
    Alert(
        "TrimtabSaturation",
        _open("saturation"),
        "critical",
        f"More demand than the fleet can serve: {_WHERE}",
        "Requests have been queueing for 5 minutes although Trimtab scales: at most, or slower than demand grows.",
        hold="5m",
    ),
    Alert(
        "TrimtabAtMaximum",
        "fleet:requests:rate1m > on (fleet)"
        ' (0.9 * trimtab_replica_bounds{bound="max"} * on (fleet) group_left () trimtab_capacity_per_replica)',
        "warning",
        "Fleet {{ $labels.fleet }} needs nearly all replicas that it may have",
        "{{ $value | humanize }} requests/s arrive, over 90 % of what the most allowed replicas can serve.",
        hold="10m",
    ),
    Alert(
        "TrimtabActFailed",
        'sum by (fleet, action) (increase(trimtab_fleet_decisions_total{outcome="failed"}[10m])) > 0',
        "warning",
        "An act failed: {{ $labels.action }} on fleet {{ $labels.fleet }}",
        "The actuator did not accept it. Trimtab tries again with every step; the reason is in the decision.",
    ),
]

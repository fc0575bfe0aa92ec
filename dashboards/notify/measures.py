"""The notifier's own metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

UPDATES = Counter("trimtab_notify_updates_total", "Updates of incidents by what happened.", ["happening"])
OPEN = Gauge("trimtab_notify_open_incidents", "Incidents that are not over.")
ATTEMPTS = Counter(
    "trimtab_notify_attempts_total", "Attempts to deliver, by receiver and what became of them.", ["receiver", "verdict"]
)
DEAD = Counter("trimtab_notify_dead_total", "Updates that became dead letters, by receiver.", ["receiver"])
WAITING = Gauge("trimtab_notify_waiting", "Updates read and not delivered yet, by receiver.", ["receiver"])
AFTER_SECONDS = Histogram(
    "trimtab_notify_after_seconds",
    "Time from the moment an update is about to its accepted delivery, by receiver.",
    ["receiver"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)

"""The rules of the Kubernetes HorizontalPodAutoscaler, as its documentation and its controller's source say.

Source: kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale (algorithm details, default behavior), and
pkg/controller/podautoscaler in kubernetes/kubernetes for what the page leaves open (rounding, pods that are not ready).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

TOLERANCE = 0.1
SYNC_SECONDS = 15.0
METRICS_SECONDS = 15.0
"""Resolution of metrics-server: how often resource metrics are taken, and over which time."""


@dataclass(frozen=True)
class Policy:
    """At most `value` pods, or percent of the pods, are added or removed within `period` seconds."""

    kind: Literal["pods", "percent"]
    value: int
    period: float = 15.0


UP = (Policy("percent", 100), Policy("pods", 4))
DOWN = (Policy("percent", 100),)
UP_WINDOW_SECONDS = 0.0
DOWN_WINDOW_SECONDS = 300.0


def by_average(current: int, ready: int, per_ready_pod: float, target: float) -> int:
    """Replicas by a metric of pods (resource or custom): its mean over ready pods against the target for one pod.

    `current` counts pods that are not ready as well: for scaling up they are taken to use nothing.
    """
    if ready == 0:
        return current
    ratio = per_ready_pod / target
    unready = current - ready
    if unready <= 0 or ratio <= 1:
        return current if _is_close(ratio) else _ceil(ratio * ready)
    damped = ratio * ready / current
    if _is_close(damped) or damped < 1:
        return current
    return max(current, _ceil(damped * current))


def by_total(current: int, total: float, target_per_pod: float) -> int:
    """Replicas by an external metric with an average value: the whole of it, shared between pods."""
    ratio = total / (target_per_pod * current)
    return current if _is_close(ratio) else _ceil(total / target_per_pod)


def _is_close(ratio: float) -> bool:
    return abs(1 - ratio) <= TOLERANCE + 1e-9


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)


@dataclass
class Hpa:
    """What one HorizontalPodAutoscaler remembers: recommendations for its windows, and changes for its policies."""

    least: int
    most: int
    up: Sequence[Policy] = UP
    down: Sequence[Policy] = DOWN
    up_window: float = UP_WINDOW_SECONDS
    down_window: float = DOWN_WINDOW_SECONDS
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now: float, current: int, desired: int) -> int:
        """Replicas after stabilization, policies and bounds; what is returned counts as done."""
        stable = self._stabilize(now, current, desired)
        if stable > current:
            wanted = max(current, min(stable, self._most_allowed(now, current)))
        elif stable < current:
            wanted = min(current, max(stable, self._least_allowed(now, current)))
        else:
            wanted = current
        wanted = min(max(wanted, self.least), self.most)
        if wanted != current:
            self._changes.append((now, wanted - current))
        return wanted

    def _stabilize(self, now: float, current: int, desired: int) -> int:
        longest = max(self.up_window, self.down_window)
        self._recommended = [item for item in self._recommended if item[0] > now - longest]
        self._recommended.append((now, desired))
        least = min([desired, *(count for at, count in self._recommended if at > now - self.up_window)])
        most = max([desired, *(count for at, count in self._recommended if at > now - self.down_window)])
        return min(max(current, least), most)

    def _most_allowed(self, now: float, current: int) -> int:
        def limit(policy: Policy) -> int:
            start = current - self._changed(now, policy.period)
            return start + policy.value if policy.kind == "pods" else _ceil(start * (1 + policy.value / 100))

        return max(limit(policy) for policy in self.up)

    def _least_allowed(self, now: float, current: int) -> int:
        def limit(policy: Policy) -> int:
            start = current - self._changed(now, policy.period)
            return start - policy.value if policy.kind == "pods" else int(start * (1 - policy.value / 100))

        return min(limit(policy) for policy in self.down)

    def _changed(self, now: float, period: float) -> int:
        return sum(count for at, count in self._changes if at > now - period)

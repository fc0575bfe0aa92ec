"""What a process of ours costs between two looks: processor time, memory, and requests to the Kubernetes API."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Look:
    """`cpu`: seconds of processor time so far; `rss`: bytes resident; `requests`: (verb, code) -> how many so far."""

    time: float
    cpu: float
    rss: int
    requests: Counter[tuple[str, str]]
    steps: float
    fleets: int


@dataclass(frozen=True)
class Cost:
    """Between two looks, per second of the clock."""

    seconds: float
    cores: float
    rss_mib: float
    requests: Counter[tuple[str, str]]
    steps_per_second: float

    @property
    def per_second(self) -> float:
        """Requests to the API a second."""
        return self.requests.total() / self.seconds

    @property
    def by_verb(self) -> str:
        """The requests in words, the most frequent first."""
        verbs: Counter[str] = Counter()
        for (verb, _), number in self.requests.items():
            verbs[verb] += number
        return ", ".join(f"{verb} {number / self.seconds:.2f}/s" for verb, number in verbs.most_common())

    @property
    def refused(self) -> int:
        """Requests without an answer, or with one of 400 and more."""
        return sum(number for (_, code), number in self.requests.items() if not code.isdigit() or int(code) >= 400)


def look(pid: int, page: str) -> Look:
    """One look at a process and its metrics page."""
    text = httpx.get(page, timeout=30, trust_env=False).text
    requests: Counter[tuple[str, str]] = Counter()
    steps = fleets = 0.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "trimtab_kube_requests_total":
                requests[sample.labels["verb"], sample.labels["code"]] += round(sample.value)
            elif sample.name == "trimtab_autoscaler_step_seconds_count":
                steps = sample.value
            elif sample.name == "trimtab_operator_fleets":
                fleets = sample.value
    process = psutil.Process(pid)
    spent = process.cpu_times()
    return Look(time.monotonic(), spent.user + spent.system, process.memory_info().rss, requests, steps, int(fleets))


def cost(before: Look, after: Look) -> Cost:
    """What happened between two looks."""
    seconds = after.time - before.time
    return Cost(
        seconds,
        (after.cpu - before.cpu) / seconds,
        after.rss / 2**20,
        after.requests - before.requests,
        (after.steps - before.steps) / seconds,
    )

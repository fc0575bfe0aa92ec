"""Adapters: many tasks on one base network. Who is popular, who is held, what moves, and how sure each one's answers are."""

from __future__ import annotations

from collections.abc import Sequence

from dashboards.boards.kind import PREFIX, Board
from dashboards.panels import Section, lines


def sections() -> Sequence[Section]:
    """Hits and what a miss costs; what moves; what is held; popularity and confidence."""
    return [
        (
            "Hits",
            [
                lines(
                    "Found in memory",
                    "Share of the requests whose adapter was there: the others waited for it. A new version begins with what was "
                    "popular.",
                    "percentunit",
                    "adapters_hit_ratio",
                    most=1,
                    span=8,
                ),
                lines(
                    "Requests by what became of them",
                    "Unknown: no such adapter in the set. Overload: too many requests wait for adapters.",
                    "reqps",
                    "adapters_requests",
                    stacked=True,
                    span=8,
                ),
                lines(
                    "Time to load",
                    "Fetching and reading one adapter: what a request waits that misses.",
                    "s",
                    "adapters_load_p50",
                    "adapters_load_p99",
                    span=8,
                ),
            ],
        ),
        (
            "What moves",
            [
                lines("Bytes moved", "Files, by why they were fetched.", "Bps", "adapters_moved", stacked=True, span=8),
                lines("Adapters fetched", "By a request that waits, or before one comes.", "cps", "adapters_loads", span=8),
                lines(
                    "Fetches that failed",
                    "Not to be had, or not what was published; the replica's log and the error say which.",
                    "cps",
                    "adapters_load_failures",
                    span=8,
                ),
            ],
        ),
        (
            "What is held",
            [
                lines("Memory used", "Of what adapters may take.", "percentunit", "adapters_held_ratio", most=1, span=8),
                lines("Adapters in memory", "Per replica.", "short", "adapters_held", span=8),
                lines(
                    "Places change hands",
                    "Left: made room for another one. Not kept: was fetched, answered, and was not worth a place. "
                    "Many of both: more memory would help.",
                    "cps",
                    "adapters_evictions",
                    "adapters_refusals",
                    span=8,
                ),
            ],
        ),
        (
            "Tasks",
            [
                lines(
                    "Popularity",
                    "Recent share of the requests.",
                    "percentunit",
                    "adapters_popular",
                    span=8,
                ),
                lines(
                    "Answers",
                    "The most popular, and all others together.",
                    "reqps",
                    "adapters_answers",
                    span=8,
                ),
                lines(
                    "Confidence",
                    "Mean confidence: an adapter that falls with a new version of the set is why to roll it back.",
                    "none",
                    "adapters_confidence",
                    most=1,
                    span=8,
                ),
            ],
        ),
    ]


BOARD = Board(
    f"{PREFIX}adapters",
    "Trimtab / Adapters",
    "Many tasks on one base network: popularity, hits, bytes moved, confidence.",
    sections,
)

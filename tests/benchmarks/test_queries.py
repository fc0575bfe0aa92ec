"""The benchmark of the panels: it fills in every series that a panel reads, and its alternative uses no recording rule."""

import re

from benchmarks.suite.queries import Size, _series, _unrecorded
from dashboards.queries import QUERIES
from dashboards.rules.files import records


def test_every_series_that_a_query_reads_is_filled_in() -> None:
    filled = {name.partition("{")[0] for name, _, _ in _series(Size(1, 1, 1.0))}
    read = {name for query in QUERIES.values() for name in re.findall(r"[a-zA-Z_:][\w:]*(?=\{)|trimtab_\w+", query.expr)}
    assert read <= filled


def test_series_are_filled_in_once() -> None:
    names = [name for name, _, _ in _series(Size(2, 3, 1.0))]
    assert len(names) == len(set(names))


def test_the_alternative_uses_no_recording_rule() -> None:
    recorded = {record.name: f"({record.expr})" for record in records()}
    for query in QUERIES.values():
        plain = _unrecorded(query.expr, recorded)
        left = {name for name in recorded if re.search(rf"(?<![\w:]){re.escape(name)}(?![\w:])(?!\{{[^}}]*}}\[)(?!\[)", plain)}
        assert left == set(), query.expr

"""The parser: right on good pages (as prometheus-client reads them), clear on bad ones, never half-read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from collectors.exposition import Limits, Parser, ScrapeError, _value, series_key

PAGES = sorted((Path(__file__).parent / "data").glob("*.prom"))


def library(page: str) -> dict[str, float | None]:
    """The page as prometheus-client reads it. Without comments, as it renames the series of a TYPE counter."""
    bare = "".join(f"{line}\n" for line in page.split("\n") if not line.lstrip(" \t\r").startswith("#"))
    series: dict[str, float | None] = {}
    for family in text_string_to_metric_families(bare):
        for sample in family.samples:
            key = series_key(sample.name, sample.labels)
            series[key] = _value(key, float(sample.value))
    return series


def parse(page: str | bytes, **kwargs: object) -> dict[str, float | None]:
    """Parses twice with the same parser: what it remembers of the first time must change nothing."""
    parser = Parser(**kwargs)  # type: ignore[arg-type]
    body = page.encode() if isinstance(page, str) else page
    first = parser.parse(body)
    assert parser.parse(body) == first
    return first


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_reads_recorded_pages_as_prometheus_client_does(path: Path) -> None:
    series = parse(path.read_bytes())
    assert len(series) > 10
    assert series == library(path.read_text())


def test_there_are_recorded_pages() -> None:
    assert len(PAGES) == 7


def test_series_keep_their_names_though_their_type_is_counter() -> None:
    page = "# HELP nv_inference_request_success n\n# TYPE nv_inference_request_success counter\nnv_inference_request_success 3\n"
    assert parse(page) == {"nv_inference_request_success": 3.0}


def test_labels_are_sorted_and_escaped() -> None:
    page = 'm{b="2",a="x\\"y\\\\z\\nw",} 1.5e3 1700000000000\nempty{} +Inf\n\t spaced \t { a = "1" } \t 7 \r\nnone NaN\n'
    assert parse(page) == {'m{a="x\\"y\\\\z\\nw",b="2"}': 1500.0, "empty": None, 'spaced{a="1"}': 7.0, "none": None}


def test_a_timestamp_is_never_taken_for_the_value() -> None:
    parser = Parser()
    assert parser.parse(b"m 1 1\n") == {"m": 1.0}
    assert parser.parse(b"m 1 7\n") == {"m": 1.0}
    assert parser.parse(b"m 2 \n") == {"m": 2.0}
    assert parser.parse(b"m 3\n") == {"m": 3.0}


@pytest.mark.parametrize(
    "blank", ["9223372036854775794", "9223372036854775792", "2147483632", "2147483635", "140737488355328", "140737488355330.0"]
)
def test_dcgm_blanks_are_unknown(blank: str) -> None:
    assert parse(f'DCGM_FI_DEV_FB_USED{{gpu="0"}} {blank}\n') == {'DCGM_FI_DEV_FB_USED{gpu="0"}': None}
    assert parse(f"bytes_total {blank}\n") == {"bytes_total": float(blank)}
    assert parse("DCGM_FI_DEV_FB_USED 2147483631\n") == {"DCGM_FI_DEV_FB_USED": 2147483631.0}


def test_only_wanted_names_are_kept_but_all_are_checked() -> None:
    parser = Parser(keep=("nv_", "trimtab_"))
    assert parser.parse(b'go_gc 1\nnv_a{x="1"} 2\nnv_b 3\ntrimtab_c 4\n') == {'nv_a{x="1"}': 2.0, "nv_b": 3.0, "trimtab_c": 4.0}
    with pytest.raises(ScrapeError, match="line 1"):
        parser.parse(b"go_gc one\nnv_b 3\n")


@pytest.mark.parametrize(
    ("page", "line"),
    [
        (b"<html><body>502 Bad Gateway</body></html>\n", 1),
        (b"a 1\nb\n", 2),
        (b"a 1\nb 2\nc{x=1} 3\n", 3),
        (b'a{x="1} 3\n', 1),
        (b'a{x="1"\n', 1),
        (b'a{x="1" y="2"} 3\n', 1),
        (b"a{,} 3\n", 1),
        (b'a{x="1",,y="2"} 3\n', 1),
        (b'a{x="1",x="2"} 3\n', 1),
        (b'a{__name__="b"} 3\n', 1),
        (b'a{x="bad \\q"} 3\n', 1),
        (b"a 1_000\n", 1),
        (b"a 0x10\n", 1),
        ("a \N{FULLWIDTH DIGIT ONE}\n".encode(), 1),
        (b"a 1 2 3\n", 1),
        (b"a 1 now\n", 1),
        (b"a 1\n9b 1\n", 2),
        (b"a-b 1\n", 1),
        (b"a 1\n\xff\xfe 1\n", 2),
        (b"ok 1\ncut_off_in_the_mid", 2),
        (b"ok 1\ncut_off_in_the_number 12", 2),
        (b'a{x="1"} 1\na{x="1"} 2\n', 2),
    ],
)
def test_malformed_pages_are_refused_whole_with_the_line(page: bytes, line: int) -> None:
    with pytest.raises(ScrapeError, match=rf"\bline {line}:") as caught:
        Parser().parse(page)
    assert caught.value.reason == "malformed"


def test_a_bad_line_is_refused_also_when_its_series_is_known() -> None:
    parser = Parser()
    parser.parse(b'a{x="1"} 1\n')
    for bad in (b'a{x="1"} one\n', b'a{x="1"} \n', b'a{x="1"}\n', b'a{x="1"} 1_0\n', b'a{x="1"} 1 1 1\n'):
        with pytest.raises(ScrapeError, match="line 1"):
            parser.parse(bad)


def test_the_same_series_twice_with_one_value_is_one() -> None:
    assert parse(b"a 1\na 1\n") == {"a": 1.0}


def test_an_empty_page_is_no_page() -> None:
    with pytest.raises(ScrapeError, match="empty"):
        Parser().parse(b"")
    assert Parser().parse(b"# nothing yet\n") == {}


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (b"a 1\n" * 300, "larger than 1000 bytes"),
        (b"\n" * 41, "more than 40 lines"),
        (b"".join(b"a%d 1\n" % i for i in range(11)), "line 11: more than 10 series"),
        (b'a{x="%s"} 1\n' % (b"y" * 21), "longer than 20 characters"),
        (b"a" * 21 + b" 1\n", "longer than 20 characters"),
    ],
)
def test_limits(page: bytes, said: str) -> None:
    limits = Limits(body_bytes=1000, series=10, label_length=20)
    with pytest.raises(ScrapeError, match=re.escape(said)) as caught:
        Parser(limits).parse(page)
    assert caught.value.reason == "too_large"


def test_series_dropped_by_keep_count_towards_the_limit() -> None:
    with pytest.raises(ScrapeError, match="more than 10 series"):
        Parser(Limits(series=10), keep=("b",)).parse(b"".join(b"a%d 1\n" % i for i in range(11)))


def test_a_target_whose_labels_change_all_the_time_does_not_fill_the_memory() -> None:
    parser = Parser(Limits(series=10))
    for turn in range(50):
        page = "".join(f'a{{id="{turn}-{i}"}} {i}\n' for i in range(10))
        assert len(parser.parse(page.encode())) == 10
        assert len(parser._known) <= 30


def test_openmetrics_is_read_when_the_page_says_so() -> None:
    registry = CollectorRegistry()
    Counter("requests", "r", ["code"], registry=registry).labels("5xx").inc(3)
    Gauge("load", "l", registry=registry).set(float("nan"))
    page, kind = generate_openmetrics(registry), "application/openmetrics-text; version=1.0.0; charset=utf-8"  # type: ignore[no-untyped-call]
    series = Parser().parse(page, kind)
    assert series['requests_total{code="5xx"}'] == 3.0
    assert series["load"] is None
    assert set(Parser(keep=("load",)).parse(page, kind)) == {"load"}
    for cut in (page.replace(b"# EOF\n", b""), page[: len(page) // 2], b"{}\n# EOF\n"):
        with pytest.raises(ScrapeError, match="not valid OpenMetrics"):
            Parser().parse(cut, kind)
    with pytest.raises(ScrapeError, match="more than 2 series"):
        Parser(Limits(series=2)).parse(page, kind)


NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,20}", fullmatch=True)
LABELS = st.dictionaries(
    st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,10}", fullmatch=True), st.text(st.characters(codec="utf-8"), max_size=20), max_size=5
)
VALUES = st.floats() | st.integers(-(10**20), 10**20).map(float)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.tuples(NAMES, LABELS.map(lambda labels: tuple(sorted(labels.items())))), VALUES, max_size=8))
def test_any_page_reads_back_as_written(samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> None:
    expected = {series_key(name, dict(labels)): value for (name, labels), value in samples.items()}
    page = "# a comment\n" + "".join(f"{key} {value!r}\n" for key, value in expected.items())
    assert parse(page) == {key: _value(key, value) for key, value in expected.items()} == library(page)


SNIPPETS = st.sampled_from(
    [
        "a",
        "b:c",
        " ",
        "\t",
        "{",
        "}",
        '"',
        "\\",
        "\\n",
        '\\"',
        ",",
        "=",
        "\n",
        "\r",
        "1",
        "-2.5e3",
        "NaN",
        "+Inf",
        "_",
        "# HELP a b",
        "x=",
        "é",
    ]
)
HOSTILE = st.lists(SNIPPETS | st.characters(codec="utf-8"), max_size=40).map("".join)
MANGLED = st.tuples(
    st.sampled_from([path.read_text() for path in PAGES]).map(lambda text: "\n".join(text.split("\n")[:30]) + "\n"),
    st.integers(0, 3000),
    st.integers(0, 8),
    HOSTILE,
).map(lambda t: t[0][: t[1]] + t[3][:6] + t[0][t[1] + t[2] :])


@settings(deadline=None)
@given(HOSTILE | MANGLED)
@example('a{x="1"}1\n')
@example("a 1 # {} 2\n")
@example("\x1ca 1\n")
def test_what_is_accepted_is_what_prometheus_client_reads(page: str) -> None:
    """The other way round does not hold: prometheus-client takes pages that are cut off or wrong."""
    try:
        series = parse(page)
    except ScrapeError as error:
        assert len(str(error)) < 300
        return
    assert series == library(page)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_never_give_anything_but_series_or_a_scrape_error(body: bytes) -> None:
    for kind in ("text/plain", "application/openmetrics-text"):
        try:
            Parser().parse(body, kind)
        except ScrapeError as error:
            assert str(error)


def test_histogram_pages_of_the_client_library() -> None:
    registry = CollectorRegistry()
    Histogram("seconds", "s", ["version"], buckets=(0.1, 1), registry=registry).labels("2").observe(0.5)
    series = parse(generate_latest(registry))
    assert series['seconds_bucket{le="0.1",version="2"}'] == 0.0
    assert series['seconds_bucket{le="+Inf",version="2"}'] == 1.0

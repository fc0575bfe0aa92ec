"""What a real Triton says about the quality of its answers, and a replica whose network fails."""

import time

import httpx
import pytest

from collectors.exposition import Parser
from serving_stack.fault import Fault
from serving_stack.intervals import wilson

pytestmark = pytest.mark.integration

SHORT, LONG = "How do I change my PIN?", "word " * 300


def test_confidence_tokens_classes_and_padding_are_on_the_page(replica):
    before = replica.series()
    outputs = replica.ask(SHORT, "What is the exchange rate?").raise_for_status().json()["outputs"]
    highest = max(outputs[1]["data"])
    tokens = sum(replica.grown(before, "trimtab_model_tokens_sum", 9 + 8).values())
    now = replica.series()

    def grown(start):
        return {series: now[series] - before[series] for series in now if series.startswith(start) and series in before}

    buckets = grown("trimtab_model_confidence_bucket")
    assert buckets[next(series for series in buckets if 'le="+Inf"' in series)] == 2
    below = [
        value
        for series, value in buckets.items()
        if (le := series.split('le="')[1].split('"')[0]) != "+Inf" and float(le) < highest
    ]
    assert all(value < 2 for value in below)
    assert sum(value for series, value in grown("trimtab_model_tokens_bucket").items() if 'le="16"' in series) == 2
    assert (
        sum(replica.series()[s] - before.get(s, 0) for s in replica.series() if s.startswith("trimtab_model_answers_total")) == 2
    )
    assert sum(grown("trimtab_model_padded_tokens_total").values()) >= tokens
    assert 1 <= sum(grown("trimtab_model_runs_total").values()) <= 2


def test_a_text_that_is_cut_is_answered_and_counted(replica):
    before = replica.series()
    assert replica.ask(LONG).status_code == 200
    replica.grown(before, "trimtab_model_truncated_total", 1)
    replica.grown(before, "trimtab_model_tokens_sum", 128)


def test_long_and_short_texts_of_one_request_are_not_padded_to_each_other(replica):
    before = replica.series()
    replica.ask(LONG, *[SHORT] * 15).raise_for_status()
    replica.grown(before, "trimtab_model_padded_tokens_total", 128 + 15 * 9)
    replica.grown(before, "trimtab_model_runs_total", 2)


def test_answers_do_not_depend_on_who_shares_the_batch(replica):
    alone = [replica.label(text) for text in (SHORT, "What is the exchange rate?", "My top up failed, why?")]
    together = replica.ask("My top up failed, why?", LONG, SHORT, "What is the exchange rate?").json()["outputs"][0]["data"]
    assert [together[2], together[3], together[0]] == alone


def test_the_collector_s_strict_parser_reads_the_page(replica):
    page = httpx.get(replica.plan.metrics_url).content
    series = Parser(keep=("trimtab_",)).parse(page, "text/plain; version=0.0.4")
    assert sum(name.startswith("trimtab_model_confidence_bucket") for name in series) == 12
    assert len(series) < 60


def test_instances_share_series_and_their_memory_is_added_up(started, store, tmp_path):
    with started(store, 2, tmp_path / "intent-v2-5", instances=2) as replica:
        replica.until_ready()
        before = replica.series()
        for _ in range(20):
            replica.ask(SHORT).raise_for_status()
        replica.grown(before, "trimtab_model_tokens_count", 20)
        assert replica.metric("trimtab_model_confidence_count") == before_of(before, "trimtab_model_confidence_count") + 20
        assert replica.metric("trimtab_model_resident_memory_bytes") > 120_000_000
        assert len([series for series in replica.series() if series.startswith("trimtab_model_resident_memory_bytes")]) == 1


def before_of(series, name):
    return next(value for key, value in series.items() if key.startswith(name + "{"))


def feedback(replica, rows):
    names = (("version", "INT64", 0), ("answered", "BYTES", 1), ("right", "BYTES", 2))
    inputs = [{"name": n, "datatype": kind, "shape": [len(rows), 1], "data": [row[i] for row in rows]} for n, kind, i in names]
    url = replica.plan.infer_url.replace("/intent/", "/intent_feedback/")
    return httpx.post(url, json={"inputs": inputs}, timeout=20)


def test_feedback_gives_a_running_accuracy_with_its_interval(replica):
    before = replica.series()
    rows = [(2, "change_pin", "change_pin")] * 9 + [(2, "change_pin", "card_arrival")]
    outputs = {each["name"]: each["data"] for each in feedback(replica, rows).raise_for_status().json()["outputs"]}
    grown = replica.grown(before, "trimtab_model_feedback_total", 10)
    assert {series.split('outcome="')[1].split('"')[0]: value for series, value in grown.items()} == {"right": 9, "wrong": 1}
    now = replica.series()
    right = sum(value for series, value in now.items() if series.startswith("trimtab_model_feedback_total") and "right" in series)
    assert set(outputs["labels"]) == {outputs["labels"][0]}
    low, high = wilson(int(right), outputs["labels"][0])
    assert outputs["accuracy"][0] == pytest.approx(right / outputs["labels"][0])
    assert (outputs["low"][0], outputs["high"][0]) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((3, "change_pin", "change_pin"), "about version 3 came to a replica of version 2"),
        ((2, "change_pin", "nonsense"), "'nonsense' is no label"),
    ],
)
def test_feedback_that_cannot_be_is_refused_and_counts_nowhere(replica, row, words):
    before = replica.series()
    answer = feedback(replica, [(2, "change_pin", "change_pin"), row])
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    replica.grown(before, "trimtab_model_feedback_total", 0)


def test_a_replica_whose_network_fails_is_soon_not_ready_and_ends(started, store, tmp_path):
    with started(store, 2, tmp_path / "intent-v2-6") as replica:
        replica.until_ready()
        replica.fault(Fault(kind="broken"))
        statuses = []
        while replica.is_ready():
            try:
                statuses.append(replica.ask(SHORT).status_code)
            except httpx.TransportError:
                break
        assert statuses[:3] == [500, 500, 500]
        replica.process.wait(20)
        assert "the network is broken, this replica ends: broken as the fault file asks" in replica.log()


def test_a_network_that_works_again_keeps_its_replica(started, store, tmp_path):
    with started(store, 2, tmp_path / "intent-v2-4") as replica:
        replica.until_ready()
        for _ in range(3):
            replica.fault(Fault(kind="broken"))
            assert [replica.ask(SHORT).status_code for _ in range(2)] == [500, 500]
            replica.fault(None)
            assert replica.label(SHORT) == "change_pin"
        time.sleep(0.5)
        assert replica.is_ready()

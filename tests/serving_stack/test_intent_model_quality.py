"""What the answers are like, as counted inside Triton."""

import threading
from collections import Counter

import numpy as np

from serving_stack.intent_model.quality import CONFIDENCE, OTHER, SLOTS, TOKENS, Quality, TopClasses

NAMES = [f"class{i}" for i in range(40)]


def answered(quality, best, confidence=0.9, tokens=10):
    best = np.array(best)
    quality.answered(best, np.full(len(best), confidence, dtype=np.float32), np.full(len(best), tokens))


def of(grown, name):
    return {
        dict(labels).get("le") or dict(labels).get("class"): value for (series, labels), value in grown.items() if series == name
    }


def test_histograms_are_cumulative_and_end_with_all():
    quality = Quality(NAMES)
    for confidence in (0.05, 0.5, 0.55, 0.995):
        answered(quality, [0], confidence)
    grown, ended = quality.take()
    buckets = of(grown, "trimtab_model_confidence_bucket")
    assert [buckets[f"{bound:g}"] for bound in CONFIDENCE] == [1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3]
    assert buckets["+Inf"] == 4
    assert ended == []


def test_a_value_on_a_bound_is_within_it():
    quality = Quality(NAMES)
    answered(quality, [0], 0.25, TOKENS[1])
    assert of(quality.take()[0], "trimtab_model_tokens_bucket").keys() == {f"{b:g}" for b in TOKENS[1:]} | {"+Inf"}


def test_what_was_taken_is_not_counted_again():
    quality = Quality(NAMES)
    answered(quality, [3, 3])
    quality.ran(34)
    quality.refused("empty")
    quality.truncated(1)
    grown, _ = quality.take()
    assert grown[("trimtab_model_tokens_sum", ())] == 20
    assert grown[("trimtab_model_tokens_count", ())] == 2
    assert grown[("trimtab_model_runs_total", ())] == 1
    assert grown[("trimtab_model_padded_tokens_total", ())] == 34
    assert grown[("trimtab_model_refused_total", (("reason", "empty"),))] == 1
    assert grown[("trimtab_model_truncated_total", ())] == 1
    assert quality.take() == ({}, [])


def test_few_classes_have_a_series_and_all_others_share_one():
    quality = Quality(NAMES)
    answered(quality, [*range(40), 39])
    classes = of(quality.take()[0], "trimtab_model_answers_total")
    assert len(classes) == SLOTS + 1
    assert classes.pop(OTHER) == 41 - SLOTS
    assert set(classes.values()) == {1}


def test_a_frequent_class_takes_the_place_of_a_rare_one_and_nothing_is_lost():
    quality = Quality(NAMES)
    total, gone = Counter(), []
    for _ in range(30):
        answered(quality, [30] * 30 + [0, 1, 2])
        grown, ended = quality.take()
        total.update(of(grown, "trimtab_model_answers_total"))
        gone += ended
    assert total["class30"] > 500
    assert total.total() == 30 * 33
    assert len(gone) == 1
    assert dict(gone[0][1])["class"] not in ("class0", "class1", "class2", "class30")


def test_evenly_spread_answers_change_no_places():
    top, chance = TopClasses(40), np.random.default_rng(1)
    for _ in range(100):
        assert top.saw(np.bincount(chance.integers(0, 40, 50), minlength=40)) == set()
    assert top.own == set(range(SLOTS))


def test_little_evidence_changes_nothing():
    top = TopClasses(40)
    assert top.saw(np.eye(40)[39] * 15) == set()
    assert top.saw(np.eye(40)[39] * 5) == {0}


def test_a_model_of_few_classes():
    assert TopClasses(2).saw(np.array([1000, 0])) == set()


def test_nothing_is_lost_between_two_threads():
    quality, taken = Quality(NAMES), Counter()
    done = threading.Event()

    def take():
        while not done.is_set():
            taken.update(quality.take()[0])

    thread = threading.Thread(target=take)
    thread.start()
    for _ in range(300):
        answered(quality, [1, 2])
    done.set()
    thread.join()
    taken.update(quality.take()[0])
    assert taken[("trimtab_model_tokens_count", ())] == 600

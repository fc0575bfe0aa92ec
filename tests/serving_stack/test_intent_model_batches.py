"""Texts in groups of similar length: all of them once, and never dearer than another way of grouping them."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from serving_stack.intent_model.batches import grouped

LENGTHS = st.lists(st.integers(2, 128), min_size=1, max_size=40)


def cost(groups, lengths, overhead):
    return sum(overhead + len(group) * max(lengths[place] for place in group) for group in groups)


def test_one_long_text_does_not_make_the_short_ones_long():
    assert [sorted(group) for group in grouped([9, 82, 10, 9], 4, 1024)] == [[0, 2, 3], [1]]


def test_alike_texts_go_together():
    assert len(grouped([12] * 16, 4, 1024)) == 1


def test_a_dear_run_makes_groups_larger():
    lengths = [8, 16, 24, 32]
    assert [len(grouped(lengths, overhead, 1024)) for overhead in (0, 1000)] == [4, 1]


@given(LENGTHS, st.integers(0, 50), st.integers(100, 2000))
def test_every_text_is_in_one_group_and_no_group_is_too_large(lengths, overhead, most):
    groups = grouped(lengths, overhead, most)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or len(group) * max(lengths[place] for place in group) <= most for group in groups)


@given(st.lists(st.integers(2, 64), min_size=1, max_size=8), st.integers(0, 50))
def test_no_other_cut_of_the_sorted_texts_costs_less(lengths, overhead):
    ordered = sorted(range(len(lengths)), key=lengths.__getitem__)
    best = min(
        cost([ordered[a:b] for a, b in zip((0, *cuts), (*cuts, len(ordered)), strict=True)], lengths, overhead)
        for size in range(len(ordered))
        for cuts in combinations(range(1, len(ordered)), size)
    )
    assert cost(grouped(lengths, overhead, 10**6), lengths, overhead) == best

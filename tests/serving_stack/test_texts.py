"""Texts in, padded token ids out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_stack.intent_model.texts import padded, readable


def test_texts_are_stripped():
    assert readable([b"  where is my card?\n", "où?".encode()], 100) == ["where is my card?", "où?"]


@pytest.mark.parametrize(
    ("raw", "words"), [(b"", "empty"), (b" \t\n", "empty"), (b"\xff\xfe", "UTF-8"), (b"x" * 101, "101 characters")]
)
def test_what_cannot_be_read_is_refused_in_words(raw, words):
    with pytest.raises(ValueError, match=words):
        readable([b"fine", raw], 100)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_are_texts_or_a_value_error(raw):
    try:
        texts = readable(raw, 20)
    except ValueError:
        return
    assert len(texts) == len(raw)
    assert all(0 < len(text) <= 20 for text in texts)


@given(st.lists(st.lists(st.integers(1, 30521), min_size=1, max_size=30), min_size=1, max_size=16))
def test_padding_keeps_every_token_and_masks_the_rest(rows):
    ids, mask = padded(rows)
    assert ids.dtype == mask.dtype == np.int64
    assert ids.shape == mask.shape == (len(rows), max(2, max(map(len, rows))))
    assert [ids[i][mask[i] == 1].tolist() for i in range(len(rows))] == rows
    assert ids[mask == 0].sum() == 0

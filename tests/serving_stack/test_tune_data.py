"""A person's own labelled text: what is taken, and what is refused with the line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_stack.banking import Question, digest
from serving_stack.tune_data import banking, read
from trimtab.errors import Missing, TrimtabError

CSV = 'text,label\n"where, and when?",place\nhow much,price\nhow dear,price\nwhere to,place\n'


def file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_and_json_lines_of_the_same_texts_are_the_same_data(tmp_path):
    one = read(file(tmp_path, "a.csv", CSV))
    lines = '{"text": "where, and when?", "intent": "place"}\n\n{"text": "how much", "intent": "price"}\n'
    lines += '{"text": "how dear", "category": "price"}\n{"text": "where to", "label": "place"}\n'
    other = read(file(tmp_path, "a.jsonl", lines))
    assert one.labels == other.labels == ["place", "price"]
    assert one.questions == other.questions
    assert one.questions[0] == Question("where, and when?", "place")
    assert one.digest == other.digest
    assert read(file(tmp_path, "b.csv", CSV.replace("dear", "Dear"))).digest != one.digest


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    assert len(read(file(tmp_path, "a.csv", b"\xef\xbb\xbf" + CSV.encode())).questions) == 4


def test_numbers_are_labels_too(tmp_path):
    assert read(file(tmp_path, "a.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n')).labels == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "line 1: the columns are none"),
        ("a.csv", "question,answer\na,b\n", "line 1: the columns are question, answer; wanted are text and label"),
        ("a.csv", "text,label\nwhere,place\n  ,price\n", "line 3: no text"),
        ("a.csv", "text,label\nwhere,place\nhow\n", "line 3: no label"),
        ("a.csv", "text,label\nwhere, and when,place\n", "line 2: more fields than columns"),
        ("a.csv", 'text,label\n"where,place\n', "line .: unexpected end of data"),
        ("a.csv", "text,label\nwhere,place\n", "1 texts with 1 labels; at least two"),
        ("a.csv", b"text,label\n\xff\xfe,place\n", "is not UTF-8"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "line 2: no JSON"),
        ("a.jsonl", "[1]\n", "line 1: no JSON object"),
        ("a.jsonl", "[" * 100_000, "line 1: no JSON"),
        ("a.jsonl", '{"text": ["a"], "label": "b"}\n', "line 1: no text"),
        ("a.jsonl", '{"text": "a", "label": null}\n', "line 1: no label"),
        ("a.jsonl", '{"text": "a", "label": true}\n', "line 1: no label"),
    ],
)
def test_what_is_no_labelled_text_is_refused_with_the_line(tmp_path, name, content, words):
    with pytest.raises(TrimtabError, match=words):
        read(file(tmp_path, name, content))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(Missing, match="is not there"):
        read(tmp_path / "none.csv")


@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.jsonl"]))
def test_no_bytes_give_anything_but_texts_or_words(tmp_path_factory, content, name):
    folder = tmp_path_factory.mktemp("any")
    try:
        found = read(file(folder, name, content))
    except TrimtabError:
        return
    assert len(found.labels) >= 2
    assert all(question.text and question.intent in found.labels for question in found.questions)


def test_a_label_with_one_text_cannot_be_held_out_and_says_so(tmp_path):
    data = read(file(tmp_path, "a.csv", "text,label\na,x\nb,x\nc,y\n"))
    with pytest.raises(TrimtabError, match="label 'y' has one text"):
        data.split(0.1, 7)
    assert data.split(0.0, 7) == (data.questions, [])


def test_banking_is_known_by_the_hash_of_its_files():
    assert banking().digest == digest()
    kept, held = banking().split(0.1, 7)
    assert (len(kept), len(held)) == (9000, 1003)

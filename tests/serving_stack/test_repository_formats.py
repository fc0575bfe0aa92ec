"""Only weights and text that nothing executes get into a version, told by content, whatever a file is called."""

import gzip
import io
import json
import pickle
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_stack.repository import Origin, publish_files, versions
from serving_stack.repository_formats import CODE, check_format, refuse_foreign_code, refuse_unsafe, tensors
from trimtab.errors import TrimtabError


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def npy(value):
    out = io.BytesIO()
    np.save(out, value, allow_pickle=True)
    return out.getvalue()


def torch_file():
    """As torch.save writes it: a zip archive with a pickle inside."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil(), 2))
    return out.getvalue()


BAD = {
    "pickle 2": (lambda: pickle.dumps(Evil(), 2), "it is a pickle"),
    "pickle 4": (lambda: pickle.dumps({"a": 1}, 4), "it is a pickle"),
    "pickle 5": (lambda: pickle.dumps(Evil(), 5), "it is a pickle"),
    "torch.save": (torch_file, "a zip archive"),
    "numpy": (lambda: npy(np.array([Evil()], dtype=object)), "a numpy file"),
    "gzip": (lambda: gzip.compress(b"x"), "compressed with gzip"),
    "program": (lambda: b"\x7fELF\x02\x01\x01", "a program"),
    "script": (lambda: b"#!/bin/sh\necho hi\n", "a script"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
}


@pytest.mark.parametrize("name", ["model.onnx", "adapter.safetensors", "words.txt", "card.json"])
@pytest.mark.parametrize("kind", BAD)
def test_what_could_run_code_is_refused_under_any_name(tmp_path, kind, name):
    make, words = BAD[kind]
    with pytest.raises(TrimtabError, match=f"{name} is not accepted: it is .*{words.removeprefix('it is ')}"):
        publish_files(tmp_path / "store", "intent", 1, {name: make()}, origin=Origin())
    assert versions(tmp_path / "store", "intent") == []
    assert list((tmp_path / "store" / "intent").iterdir()) == []


@pytest.mark.parametrize("name", ["notes.txt", "notes.md", "card.json"])
def test_a_pickle_in_text_form_is_seen(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Evil(), 0))
    with pytest.raises(TrimtabError, match="a pickle in text form"):
        refuse_unsafe(tmp_path / name)


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "model.bin", "model.so", "model", "model.ONNX", "run.sh", "x.pyc"])
def test_other_kinds_of_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(TrimtabError, match="is not accepted: a version holds"):
        refuse_unsafe(tmp_path / name)


def test_only_the_backend_s_python_is_taken_unchanged(tmp_path):
    own = tmp_path / "model.py"
    own.write_bytes((CODE / "model.py").read_bytes())
    refuse_foreign_code(own)
    own.write_bytes((CODE / "model.py").read_bytes() + b"import os\n")
    with pytest.raises(TrimtabError, match="the only Python in a version is that of the backend"):
        refuse_foreign_code(own)


def test_plain_text_is_taken(tmp_path):
    for name, text in (
        ("a.txt", "cos is a function.\nA (short) text."),
        ("b.md", "# Title"),
        ("c.json", "[1, 2]"),
        ("d.txt", ""),
    ):
        (tmp_path / name).write_text(text)
        refuse_unsafe(tmp_path / name)
        check_format(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"{", "not JSON"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.json", b"\xff", "not JSON"),
        ("a.txt", b"\xff\xfe", "not text"),
        ("a.txt", b"a\0b", "not text: it holds zero bytes"),
    ],
)
def test_text_that_is_none_is_said(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrimtabError, match=words):
        check_format(tmp_path / name)


def safetensors_bytes():
    from safetensors.numpy import save

    return save({"a": np.ones((3, 4), dtype=np.float32), "b": np.zeros(5, dtype=np.float16)})


def test_safetensors_are_read_by_name_and_shape(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes())
    assert tensors(tmp_path / "a.safetensors") == {"a": (3, 4), "b": (5,)}


@given(st.integers(0, len(safetensors_bytes()) - 1))
def test_truncated_safetensors_are_refused(length):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.safetensors"
        file.write_bytes(safetensors_bytes()[:length])
        with pytest.raises(TrimtabError, match="no whole safetensors file"):
            tensors(file)


HEADERS = st.builds(
    lambda header, body: len(text := json.dumps(header).encode()).to_bytes(8, "little") + text + body,
    st.dictionaries(
        st.text(max_size=5),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "F16", "I64", "X"]),
                "shape": st.lists(st.integers(-1, 2**65), max_size=3),
                "data_offsets": st.lists(st.integers(-1, 2**65), min_size=2, max_size=2),
            }
        ),
        max_size=3,
    ),
    st.binary(max_size=64),
)


@given(st.one_of(st.binary(max_size=200), HEADERS), st.sampled_from(["a.safetensors", "a.json", "a.txt"]))
def test_bytes_are_taken_or_refused_in_words_and_nothing_else(content, name):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(content)
        for check in (refuse_unsafe, check_format):
            try:
                check(file)
            except TrimtabError as error:
                assert name in str(error)

"""Published versions are whole, immutable and checkable."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from serving_stack.export import INT8, INTENTS, TOKENIZER
from serving_stack.fault import Fault
from serving_stack.repository import publish, verify, versions
from serving_stack.repository_manifest import read_manifest
from trimtab.errors import Missing, TrimtabError


@pytest.fixture
def exported(tmp_path):
    folder = tmp_path / "exported"
    folder.mkdir()
    for name in (INT8, TOKENIZER, INTENTS):
        (folder / name).write_text(f"content of {name}")
    return folder


def test_a_version_holds_model_code_and_manifest(tmp_path, exported):
    folder = publish(tmp_path / "store", "intent", 1, exported)
    names = {f.name for f in folder.iterdir()}
    assert names == {"model.py", "faults.py", "texts.py", "model.onnx", TOKENIZER, INTENTS, "manifest.json"}
    assert set(read_manifest(folder).files) == names - {"manifest.json"}
    verify(tmp_path / "store", "intent", 1)
    assert versions(tmp_path / "store", "intent") == [1]


def test_versions_are_numbers_in_order(tmp_path, exported):
    for version in (10, 2, 1):
        publish(tmp_path / "store", "intent", version, exported)
    assert versions(tmp_path / "store", "intent") == [1, 2, 10]
    assert versions(tmp_path / "store", "other") == []
    assert versions(tmp_path / "nowhere", "intent") == []


def test_the_same_again_changes_nothing_and_other_content_is_refused(tmp_path, exported):
    store = tmp_path / "store"
    first = publish(store, "intent", 3, exported, Fault(kind="slow", seconds=0.2))
    assert publish(store, "intent", 3, exported, Fault(kind="slow", seconds=0.2)) == first
    with pytest.raises(TrimtabError, match="version 3 of intent is published already"):
        publish(store, "intent", 3, exported)
    verify(store, "intent", 3)
    assert (first / "fault.json").exists()
    assert [f.name for f in (store / "intent").iterdir()] == ["3"], "nothing half made is left"


def test_publishing_at_the_same_time_gives_one_whole_version(tmp_path, exported):
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: publish(tmp_path / "store", "intent", 1, exported), range(16)))
    assert len(folders) == 1
    verify(tmp_path / "store", "intent", 1)
    assert [f.name for f in (tmp_path / "store" / "intent").iterdir()] == ["1"]


def test_an_export_that_is_not_whole_is_refused_and_leaves_nothing(tmp_path, exported):
    (exported / TOKENIZER).unlink()
    with pytest.raises(Missing, match=r"tokenizer\.json is missing"):
        publish(tmp_path / "store", "intent", 1, exported)
    assert versions(tmp_path / "store", "intent") == []
    assert not (tmp_path / "store").exists()


def test_tampering_is_seen(tmp_path, exported):
    folder = publish(tmp_path / "store", "intent", 1, exported)
    (folder / "model.onnx").chmod(0o644)
    (folder / "model.onnx").write_text("something else")
    with pytest.raises(TrimtabError, match=r"model\.onnx is not the file that was published"):
        verify(tmp_path / "store", "intent", 1)
    (folder / "model.onnx").unlink()
    with pytest.raises(Missing, match=r"model\.onnx is missing"):
        verify(tmp_path / "store", "intent", 1)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": 3}', "{"])
def test_a_broken_manifest_is_said(tmp_path, exported, content):
    folder = publish(tmp_path / "store", "intent", 1, exported)
    (folder / "manifest.json").chmod(0o644)
    (folder / "manifest.json").write_text(content)
    with pytest.raises(TrimtabError, match=r"manifest\.json is not readable"):
        verify(tmp_path / "store", "intent", 1)


def test_a_version_that_is_not_there_is_said(tmp_path, exported):
    publish(tmp_path / "store", "intent", 1, exported)
    with pytest.raises(Missing, match=r"version 2 of intent is not in .*: it has \[1\]"):
        verify(tmp_path / "store", "intent", 2)


@pytest.mark.parametrize(
    ("model", "version"), [("../evil", 1), ("Intent", 1), ("", 1), ("a/b", 1), ("intent", 0), ("intent", -1)]
)
def test_wrong_names_are_refused(tmp_path, exported, model, version):
    with pytest.raises(TrimtabError):
        publish(tmp_path / "store", model, version, exported)
    assert not (tmp_path / "store").exists()

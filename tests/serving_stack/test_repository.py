"""Published versions are whole, immutable and checkable."""

import errno
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_stack.export import INT8, INTENTS, TOKENIZER
from serving_stack.fault import Fault
from serving_stack.repository import Origin, publish, publish_files, verify, versions
from serving_stack.repository_formats import CODE
from serving_stack.repository_manifest import decode, encode, read_manifest
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
    assert names == {code.name for code in CODE.glob("*.py")} | {"model.onnx", TOKENIZER, INTENTS, "manifest.json"}
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


def test_a_manifest_says_who_made_it_from_what_and_when(tmp_path, exported):
    origin = Origin(base="MiniLM", card={"accuracy": 0.9}, made_from="tune 7", made_by="ada@lab", made_at=1_700_000_000.0)
    manifest = read_manifest(publish(tmp_path / "store", "intent", 1, exported, origin=origin))
    assert (manifest.base, manifest.card, manifest.made_from) == ("MiniLM", {"accuracy": 0.9}, "tune 7")
    assert (manifest.made_by, manifest.made_at) == ("ada@lab", 1_700_000_000.0)
    assert manifest.sizes["model.onnx"] == len(f"content of {INT8}")


def test_what_is_made_of_a_version_keeps_its_card_and_names_it(tmp_path, exported):
    store = tmp_path / "store"
    first = publish(store, "intent", 1, exported, origin=Origin(base="MiniLM", card={"accuracy": 0.9}))
    second = read_manifest(publish(store, "intent", 2, first, Fault(kind="slow", seconds=0.2)))
    assert (second.base, second.card) == ("MiniLM", {"accuracy": 0.9})
    assert second.made_from == f"intent/1 {read_manifest(first).digest}"


def test_the_content_s_address_depends_on_content_only(tmp_path, exported):
    store = tmp_path / "store"
    one = read_manifest(publish(store, "intent", 1, exported, origin=Origin(made_by="ada", made_at=1.0)))
    two = read_manifest(publish(store, "other", 7, exported, origin=Origin(made_by="bob", made_at=2.0)))
    assert one.digest == two.digest
    (exported / INT8).write_text("other weights")
    assert read_manifest(publish(store, "intent", 2, exported)).digest != one.digest


def test_without_a_number_it_is_the_next_one_or_that_of_the_same_content(tmp_path, exported):
    store = tmp_path / "store"
    publish(store, "intent", 4, exported)
    assert publish(store, "intent", None, exported).name == "4"
    (exported / INT8).write_text("other weights")
    assert publish(store, "intent", None, exported).name == "5"
    assert read_manifest(store / "intent" / "5").version == 5
    verify(store, "intent", 5)


def test_adds_at_the_same_time_get_a_number_each(tmp_path, exported):
    store = tmp_path / "store"

    def add(number):
        files = {"weights.txt": f"weights {number}".encode()}
        return publish_files(store, "intent", None, files, origin=Origin(made_from=str(number)))

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(add, range(24)))
    assert sorted(int(f.name) for f in folders) == list(range(1, 25)) == versions(store, "intent")
    for number, folder in enumerate(folders):
        verify(store, "intent", int(folder.name))
        assert (folder / "weights.txt").read_text() == f"weights {number}"
    assert not [f for f in (store / "intent").iterdir() if f.name.startswith(".")]


def test_a_truncated_file_is_said_with_its_size(tmp_path, exported):
    folder = publish(tmp_path / "store", "intent", 1, exported)
    (folder / "model.onnx").chmod(0o644)
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate(5)
    with pytest.raises(TrimtabError, match=r"model\.onnx is not the file that was published: truncated, 5 bytes instead of \d+"):
        verify(tmp_path / "store", "intent", 1)


@pytest.mark.parametrize("name", ["sneaked.py", "__pycache__", "notes.txt", ".hidden"])
def test_what_is_in_no_manifest_is_refused(tmp_path, exported, name):
    folder = publish(tmp_path / "store", "intent", 1, exported)
    (folder / name).mkdir() if name == "__pycache__" else (folder / name).write_text("")
    with pytest.raises(TrimtabError, match=f"{name} is not in its manifest"):
        verify(tmp_path / "store", "intent", 1)


def test_a_link_in_a_version_is_refused(tmp_path, exported):
    folder = publish(tmp_path / "store", "intent", 1, exported)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(exported / INT8)
    with pytest.raises(TrimtabError, match=r"model\.onnx is a link"):
        verify(tmp_path / "store", "intent", 1)


@pytest.mark.parametrize("place", [("intent", 2), ("other", 1)])
def test_a_version_under_another_name_is_refused(tmp_path, exported, place):
    store, (model, version) = tmp_path / "store", place
    folder = publish(store, "intent", 1, exported)
    (store / model).mkdir(exist_ok=True)
    folder.rename(store / model / str(version))
    with pytest.raises(TrimtabError, match="was published as version 1 of intent"):
        verify(store, model, version)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".x", "", "manifest.json", "a\0b"])
def test_a_manifest_that_names_files_elsewhere_is_not_readable(tmp_path, exported, name):
    folder = publish(tmp_path / "store", "intent", 1, exported)
    (folder / "manifest.json").chmod(0o644)
    (folder / "manifest.json").write_text(json.dumps({"model": "intent", "version": 1, "files": {name: "0" * 64}}))
    with pytest.raises(TrimtabError, match=r"manifest\.json is not readable"):
        verify(tmp_path / "store", "intent", 1)


def test_a_version_of_before_sizes_were_kept_is_still_whole(tmp_path, exported):
    folder = publish(tmp_path / "store", "intent", 1, exported)
    old = {"model": "intent", "version": 1, "files": read_manifest(folder).files}
    (folder / "manifest.json").chmod(0o644)
    (folder / "manifest.json").write_text(json.dumps(old, indent=1))
    verify(tmp_path / "store", "intent", 1)
    assert read_manifest(folder).total_bytes is None


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, exported, monkeypatch, call):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = tmp_path / "store"
    publish(store, "intent", 1, exported)
    if call == "write":
        monkeypatch.setattr("serving_stack.repository_files._chunks", full)
    elif call == "fsync":
        monkeypatch.setattr("os.fsync", full)
    else:
        monkeypatch.setattr("pathlib.Path.rename", full)
    with pytest.raises(TrimtabError, match="has no room for the version .*: nothing was published"):
        publish(store, "intent", 2, exported)
    monkeypatch.undo()
    assert [f.name for f in (store / "intent").iterdir()] == ["1"]
    publish(store, "intent", 2, exported)
    verify(store, "intent", 2)


def test_a_file_that_hits_the_system_s_limit_leaves_nothing(tmp_path, exported):
    """A real failing write: the kernel gives it up at 1 MB."""
    code = """
import resource, signal, sys
from pathlib import Path
from serving_stack.repository import Origin, publish_files
from trimtab.errors import TrimtabError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    publish_files(Path(sys.argv[1]), "intent", 1, {"a.txt": b"x" * 5_000_000}, origin=Origin())
except TrimtabError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], capture_output=True, text=True)
    assert "has no room for the version" in done.stdout, done.stderr
    assert list((tmp_path / "store" / "intent").iterdir()) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MANIFESTS = st.fixed_dictionaries(
    {
        "model": JSON | st.just("intent"),
        "version": JSON | st.just(1),
        "files": JSON | st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
    },
    optional=dict.fromkeys(("schema", "sizes", "base", "card", "made_from", "made_by", "made_at"), JSON),
).map(lambda value: json.dumps(value).encode())


@given(st.binary(max_size=60) | MANIFESTS)
def test_any_manifest_is_read_or_refused_in_words(content):
    try:
        manifest = decode(content, Path("version"))
    except TrimtabError as error:
        assert "manifest.json is not readable" in str(error)
    else:
        assert manifest.digest.startswith("sha256:")
        assert decode(encode(manifest), Path("version")) == manifest


@pytest.mark.integration
def test_a_disk_that_is_really_full_leaves_nothing(tmp_path):
    """A disk of 4 MB in a mount namespace of its own; skipped where the system forbids that."""
    code = """
import sys
from pathlib import Path
from serving_stack.repository import Origin, publish_files
from trimtab.errors import TrimtabError
store = Path(sys.argv[1]) / "store"
publish_files(store, "intent", 1, {"a.txt": b"x" * 1_000_000}, origin=Origin())
try:
    publish_files(store, "intent", 2, {"a.txt": b"x" * 1_000_000, "b.txt": b"x" * 5_000_000}, origin=Origin())
except TrimtabError as error:
    print(error)
publish_files(store, "intent", 3, {"a.txt": b"y" * 1_000_000}, origin=Origin())
print(sorted(f.name for f in (store / "intent").iterdir()))
"""
    mount = 'mount -t tmpfs -o size=4m none "$1" || exit 77; exec "$2" -c "$3" "$1"'
    argv = ["unshare", "-Ur", "-m", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, code]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert "has no room for the version (No space left on device): nothing was published" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "['1', '3']"

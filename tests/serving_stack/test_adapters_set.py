"""Sets of adapters: what is released, what is refused, and that gc keeps what a set serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from typer.testing import CliRunner

from serving_stack.adapters_cli import adapters as command
from serving_stack.adapters_content import SET, read_set
from serving_stack.adapters_set import add, newest, parse, release
from serving_stack.repository import UNKNOWN, publish_files, verify
from serving_stack.repository_gc import collect, remove
from serving_stack.repository_shapes import check_contents
from serving_stack.repository_signing import Signer, Trust, key_id
from serving_stack.serving_settings import ServingSettings
from trimtab.errors import Missing, TrimtabError

LAYER = "encoder.layer.0.attention.self.query"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base network of one layer, four wide, that really takes adapters: some hundred bytes."""
    folder = tmp_path / "base"
    folder.mkdir()
    takes: dict[str, list[str | int | None]] = {"ids": ["batch", "tokens"], "mask": ["batch", "tokens"]}
    floats: dict[str, list[str | int | None]] = {
        "head": [4, "classes"],
        "bias": ["classes"],
        f"{LAYER}.down": [4, "rank"],
        f"{LAYER}.up": ["rank", 4],
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("MatMul", ["rows", f"{LAYER}.down"], ["low"]),
            helper.make_node("MatMul", ["low", f"{LAYER}.up"], ["change"]),
            helper.make_node("Add", ["rows", "change"], ["changed"]),
            helper.make_node("ReduceMean", ["changed"], ["mean"], axes=[1], keepdims=0),
            helper.make_node("MatMul", ["mean", "head"], ["scores"]),
            helper.make_node("Add", ["scores", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        ],
        "base",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in takes.items()]
        + [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in floats.items()],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", "classes"])],
        [onnx.numpy_helper.from_array(np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32), "table")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "base.onnx")
    Tokenizer(WordLevel({f"word{i}": i for i in range(10)}, unk_token="word0")).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Path]:
    """`adapter(seed, classes=3, width=4)`: the folder of an adapter for that network."""

    def make(seed: int = 1, classes: int = 3, width: int = 4, **config: object) -> Path:
        folder = tmp_path / f"made-{seed}-{classes}-{width}"
        folder.mkdir(exist_ok=True)
        chance = np.random.default_rng(seed)
        pair = {"A": chance.normal(size=(2, width)).astype(np.float16), "B": chance.normal(size=(4, 2)).astype(np.float16)}
        save_file({f"base_model.model.{LAYER}.lora_{k}.weight": v for k, v in pair.items()}, folder / "adapter_model.safetensors")
        head = {"weight": chance.normal(size=(classes, 4)).astype(np.float16), "bias": np.zeros(classes, np.float16)}
        (folder / "head.safetensors").write_bytes(save(head))
        about = {"peft_type": "LORA", "r": 2, "lora_alpha": 4} | config
        (folder / "adapter_config.json").write_text(json.dumps(about))
        (folder / "intents.json").write_text(json.dumps([f"label{n}" for n in range(classes)]))
        return folder

    return make


def test_a_set_names_versions_and_hashes_and_is_a_version_like_any_other(
    tmp_path: Path, base: Path, adapter: Callable[..., Path]
) -> None:
    store = tmp_path / "store"
    for name, seed in (("banking", 1), ("travel", 2)):
        assert add(store, name, adapter(seed), None, origin=UNKNOWN, base=base).name == "1"
    folder = release(store, "edge", None, {"banking": None, "travel": 1}, base, default="banking", origin=UNKNOWN)
    assert folder == store / "edge" / "1" and newest(store, "edge") == folder
    found = read_set(folder)
    assert found.default == "banking" and list(found.adapters) == ["banking", "travel"]
    about = found.adapters["banking"]
    assert about.version == 1 and about.bytes == sum(f.bytes for f in about.files.values()) > 0
    assert {name: f.bytes for name, f in about.files.items()} == {
        name: (store / "banking" / "1" / name).stat().st_size for name in about.files
    }
    verify(store, "edge", 1)
    check_contents(folder, sorted(f.name for f in folder.iterdir() if not f.name.startswith("manifest")))


def test_the_next_set_changes_only_what_was_named(tmp_path: Path, base: Path, adapter: Callable[..., Path]) -> None:
    store = tmp_path / "store"
    for name in ("banking", "travel", "health"):
        add(store, name, adapter(1), None, origin=UNKNOWN, base=base)
    release(store, "edge", None, dict.fromkeys(("banking", "travel")), base, default="banking", origin=UNKNOWN)
    add(store, "banking", adapter(5), None, origin=UNKNOWN, base=base)
    second = release(store, "edge", None, {"banking": None, "health": None}, None, remove=frozenset({"travel"}), origin=UNKNOWN)
    found = read_set(second)
    assert {name: each.version for name, each in found.adapters.items()} == {"banking": 2, "health": 1}
    assert found.default == "banking" and second.name == "2"
    assert read_set(store / "edge" / "1").adapters["banking"].version == 1  # to roll back to
    same = release(store, "edge", None, {"banking": 2}, None, origin=UNKNOWN)
    assert same == second  # the same content is the same version
    gone = release(store, "edge", None, {}, None, remove=frozenset({"banking"}), origin=UNKNOWN)
    assert read_set(gone).default is None


def test_what_does_not_fit_or_is_not_there_is_refused_and_nothing_is_published(
    tmp_path: Path, base: Path, adapter: Callable[..., Path]
) -> None:
    store = tmp_path / "store"
    with pytest.raises(TrimtabError, match=r"does not fit the base network: .* wrong shape"):
        add(store, "banking", adapter(width=5), None, origin=UNKNOWN, base=base)
    with pytest.raises(TrimtabError, match="uses use_dora"):
        add(store, "banking", adapter(3, use_dora=True), None, origin=UNKNOWN, base=base)
    bare = adapter(4)
    (bare / "intents.json").unlink()
    with pytest.raises(Missing, match="which labels"):
        add(store, "banking", bare, None, origin=UNKNOWN, base=base)
    assert not (store / "banking").exists()
    with pytest.raises(Missing, match="no adapter banking"):
        release(store, "edge", None, {"banking": None}, base, origin=UNKNOWN)
    with pytest.raises(Missing, match="needs a base network"):
        release(store, "edge", None, {}, None, origin=UNKNOWN)
    with pytest.raises(TrimtabError, match="serves nothing"):
        release(store, "edge", None, {}, base, origin=UNKNOWN)
    add(store, "banking", adapter(1), None, origin=UNKNOWN, base=base)
    with pytest.raises(Missing, match="default 'other' is not in the set"):
        release(store, "edge", None, {"banking": None}, base, default="other", origin=UNKNOWN)
    with pytest.raises(Missing, match="cannot be taken out"):
        release(store, "edge", None, {}, base, remove=frozenset({"banking"}), origin=UNKNOWN)
    publish_files(store, "notes", None, {"notes.txt": b"no adapter"}, origin=UNKNOWN)
    with pytest.raises(TrimtabError, match="version 1 of notes is no adapter"):
        release(store, "edge", None, {"notes": None}, base, origin=UNKNOWN)
    (store / "banking" / "1" / "head.safetensors").write_bytes(b"changed")
    with pytest.raises(TrimtabError, match="is not the file that was published"):
        release(store, "edge", None, {"banking": 1}, base, origin=UNKNOWN)
    assert not (store / "edge").exists()


def test_an_unsigned_adapter_is_refused_where_signatures_are_required(
    tmp_path: Path, base: Path, adapter: Callable[..., Path]
) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    believed = Trust({key_id(key.public_key()): key.public_key()}, required=True)
    store = tmp_path / "store"
    add(store, "banking", adapter(1), None, origin=UNKNOWN, base=base)
    with pytest.raises(TrimtabError, match="not signed"):
        release(store, "edge", None, {"banking": None}, base, trust=believed, origin=UNKNOWN)
    signer = Signer(key, key_id(key.public_key()))
    add(store, "travel", adapter(2), None, origin=UNKNOWN, signer=signer, base=base)
    release(store, "edge", None, {"travel": None}, base, trust=believed, origin=UNKNOWN, signer=signer)
    assert verify(store, "edge", 1, believed) == signer.key_id


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b'{"adapters": 3}', "not readable"),
        (b'{"adapters": {}}', "names no adapter"),
        (b'{"default": "b", "adapters": {"a": {"version": 1, "files": {}}}}', "default 'b'"),
        (b'{"adapters": {"a": {"version": 1, "files": {}}}}', "a has not the files of an adapter"),
    ],
)
def test_a_server_refuses_a_set_that_makes_no_sense(tmp_path: Path, base: Path, content: bytes, words: str) -> None:
    (base / SET).write_bytes(content)
    with pytest.raises(TrimtabError, match=words):
        check_contents(base, ["base.onnx", SET, "tokenizer.json"])


def test_a_server_refuses_a_set_whose_network_takes_no_adapters(tiny_export: Path) -> None:
    (tiny_export / SET).write_bytes(b'{"adapters": {"a": {"version": 1, "files": {}}}}')
    (tiny_export / "model.int8.onnx").rename(tiny_export / "base.onnx")
    with pytest.raises(TrimtabError, match=r"base.onnx has the wrong shape"):
        check_contents(tiny_export, ["base.onnx", SET])


def test_gc_and_remove_keep_what_a_set_serves(tmp_path: Path, base: Path, adapter: Callable[..., Path]) -> None:
    store = tmp_path / "store"
    for seed in (1, 2, 3):
        add(store, "banking", adapter(seed), None, origin=UNKNOWN, base=base)
    release(store, "edge", None, {"banking": 1}, base, origin=UNKNOWN)
    with pytest.raises(TrimtabError, match="version 1 of banking is an adapter of edge/1"):
        remove(store, "banking", 1)
    verdicts = {v.name: v for v in collect(store, 1, dry_run=False)}
    assert verdicts["banking/1"].why == "an adapter of edge/1" and not verdicts["banking/1"].free
    assert verdicts["banking/2"].free and (store / "banking" / "1").is_dir() and not (store / "banking" / "2").exists()


def test_a_drill_of_a_set_has_its_fault_and_finds_the_adapters(
    tmp_path: Path, base: Path, adapter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving_stack.container import triton

    store = tmp_path / "store"
    add(store, "banking", adapter(1), None, origin=UNKNOWN, base=base)
    release(store, "edge", None, {"banking": None}, base, default="banking", origin=UNKNOWN)
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    process = triton.prepare(store, "edge", 7, '{"kind": "wrong", "share": 0.5}', tmp_path / "work" / "pod")
    drill = tmp_path / "work" / "store"
    assert json.loads((drill / "edge" / "7" / "fault.json").read_text())["kind"] == "wrong"
    assert read_set(drill / "edge" / "7") == read_set(store / "edge" / "1")
    assert (drill / "banking" / "1" / "head.safetensors").is_file()
    verify(drill, "edge", 7)
    config = (process.folder / "repository" / "edge" / "config.pbtxt").read_text()
    assert f'"{drill}"' in config and 'key: "cache_bytes"' in config


def test_a_set_of_another_repository_is_added_whole(tmp_path: Path, base: Path, adapter: Callable[..., Path]) -> None:
    from serving_stack.models_add import add as add_version

    store, other = tmp_path / "store", tmp_path / "other"
    add(store, "banking", adapter(1), None, origin=UNKNOWN, base=base)
    release(store, "edge", None, {"banking": None}, base, origin=UNKNOWN)
    made = add_version(other, "edge", None, store / "edge" / "1")
    assert read_set(made) == read_set(store / "edge" / "1")


def test_parse() -> None:
    assert parse("banking") == ("banking", None) and parse("banking/12") == ("banking", 12)
    for wrong in ("banking/", "banking/x", "banking/²"):
        with pytest.raises(TrimtabError, match="names no adapter"):
            parse(wrong)


def test_what_triton_is_told_of_a_set(tmp_path: Path) -> None:
    from serving_stack.adapters_settings import AdaptersSettings
    from serving_stack.adapters_triton import edge_config

    settings = AdaptersSettings(memory_mib=3, source="https://models.example/store", popularity_file=tmp_path / 'odd "name".json')
    text = edge_config(tmp_path, "edge", 4, ServingSettings(instances=4), settings)
    assert 'key: "cache_bytes", value { string_value: "3145728" }' in text
    assert '"https://models.example/store"' in text and 'odd \\"name\\".json' in text
    assert "count: 1 }" in text and "versions: [ 4 ]" in text
    assert str(tmp_path) in edge_config(tmp_path, "edge", 4, ServingSettings(), AdaptersSettings())


def test_the_commands(tmp_path: Path, base: Path, adapter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving_stack.adapters_set.ensure_base", lambda **_: base)
    monkeypatch.setattr("serving_stack.adapters_base.ensure_base", lambda **_: base)
    monkeypatch.setenv("TRIMTAB_MODEL_STORE", str(tmp_path / "store"))
    run = CliRunner().invoke
    assert run(command, ["add", "banking", str(adapter(1))]).exit_code == 0
    assert run(command, ["add", "travel", str(adapter(2, classes=5))]).exit_code == 0
    made = run(command, ["release", "banking/1", "travel", "--default", "travel"])
    assert made.exit_code == 0 and "intent-edge/1 is in" in made.output, made.output
    rows = json.loads(run(command, ["list", "-o", "json"]).output)
    assert rows["set"] == "intent-edge/1"
    listed = [(row["adapter"], row["version"], row["default"]) for row in rows["adapters"]]
    assert listed == [("banking", 1, False), ("travel", 1, True)]
    assert "travel" in run(command, ["list", "1"]).output
    with pytest.raises(TrimtabError, match="say what to add"):
        run(command, ["add", "banking"], catch_exceptions=False)
    with pytest.raises(Missing, match="no version"):
        run(command, ["list", "--set", "other"], catch_exceptions=False)

"""The commands `trimtab models ...` as a person or a program calls them."""

import json
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from typer.testing import CliRunner

from serving_stack.cli import models
from serving_stack.fault import Fault
from serving_stack.repository import publish, versions
from serving_stack.repository_formats import CODE
from serving_stack.repository_signing import signer
from trimtab.errors import Missing, TrimtabError


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run("list", "-o", "json")`: what it prints; raises what the command raises. The store is `tmp_path/store`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIMTAB_MODEL_STORE", str(tmp_path / "store"))
    for name in ("TRIMTAB_MODELS_TRUSTED_KEYS", "TRIMTAB_MODELS_REQUIRE_SIGNATURE", "TRIMTAB_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments):
        result = CliRunner().invoke(models, [str(a) for a in arguments], env={"COLUMNS": "160"})
        if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call


@pytest.fixture
def key(tmp_path):
    """`key.pem`, and its public half in `trusted/`."""
    made = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "key.pem").chmod(0o600)
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / "key.pem").write_bytes(
        made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return tmp_path / "key.pem"


def rows(run, *arguments):
    return json.loads(run(*arguments, "-o", "json"))


def test_from_nothing_to_a_listed_version(run, tiny_export):
    (tiny_export / "card.json").write_text('{"base": "MiniLM", "validation_accuracy": 0.93}')
    assert "no version in" in run("list")
    assert "intent/1 is in" in run("add", tiny_export, "--made-by", "ada")
    (row,) = rows(run, "list")
    assert (row["model"], row["version"], row["base"], row["accuracy"]) == ("intent", 1, "MiniLM", 0.93)
    assert (row["made_by"], row["made_from"], row["signed_by"], row["served"]) == ("ada", "tiny", None, False)
    assert "93.00%" in run("list")
    assert rows(run, "list", "other") == []
    assert "intent/1 is in" in run("add", tiny_export), "the same again is the same version"
    assert len(rows(run, "list")) == 1


def test_a_version_is_shown_by_its_number_or_its_content(run, tiny_export):
    run("add", tiny_export)
    shown = rows(run, "show", "intent/1")
    backend = {code.name for code in CODE.glob("*.py")}
    assert "model.py" in backend
    assert set(shown["manifest"]["files"]) == {"model.onnx", "tokenizer.json", "intents.json"} | backend
    assert rows(run, "show", shown["digest"][:20]) == shown
    assert shown["digest"] in run("show", "intent/1")
    assert shown["manifest"]["files"]["model.onnx"][:20] in run("show", "intent/1")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("intent/2", r"version 2 of intent is not in .*: it has \[1\]"),
        ("sha256:000000", "no version in .* has the content"),
        ("sha256:0", "names no version"),
        ("intent", "names no version"),
        ("intent/-1", "names no version"),
        ("../../etc/1", "names no version|is not in"),
    ],
)
def test_what_names_no_version_is_said(run, tiny_export, reference, words):
    run("add", tiny_export)
    for command in ("show", "remove"):
        with pytest.raises(TrimtabError, match=words):
            run(command, reference)


def test_verify_says_which_would_be_refused_and_why(run, tiny_export, tmp_path):
    run("add", tiny_export)
    run("add", tiny_export, "--version", 2)
    assert [row["refused"] for row in rows(run, "verify")] == [None, None]
    file = tmp_path / "store" / "intent" / "2" / "model.onnx"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1])
    assert [row["refused"] for row in rows(run, "verify", "intent/1")] == [None]
    with pytest.raises(TrimtabError, match="1 of 2 would not be served: intent/2"):
        run("verify")


def test_signing_and_requiring_a_signature(run, tiny_export, key, monkeypatch):
    run("add", tiny_export, "--sign-key", key)
    (row,) = rows(run, "verify", "--trusted-keys", key.parent / "trusted", "--require-signature")
    assert row["signed_by"] == signer(key).key_id
    assert rows(run, "list")[0]["signed_by"] == signer(key).key_id
    run("add", tiny_export, "--version", 2)
    monkeypatch.setenv("TRIMTAB_MODELS_TRUSTED_KEYS", str(key.parent / "trusted"))
    run("verify")
    monkeypatch.setenv("TRIMTAB_MODELS_REQUIRE_SIGNATURE", "true")
    with pytest.raises(TrimtabError, match="1 of 2 would not be served: intent/2"):
        run("verify")
    run("verify", "--no-signature")


def test_a_pickle_in_disguise_is_not_added(run, tiny_export, tmp_path):
    (tiny_export / "model.int8.onnx").write_bytes(pickle.dumps({"weights": [1.0]}))
    with pytest.raises(TrimtabError, match=r"model\.onnx is not accepted: it is a pickle"):
        run("add", tiny_export)
    assert versions(tmp_path / "store", "intent") == []


def test_a_network_of_the_wrong_shape_is_not_added(run, tiny_export, tmp_path, write_tiny):
    write_tiny(tiny_export, classes=4)
    with pytest.raises(TrimtabError, match="has the wrong shape"):
        run("add", tiny_export)
    assert versions(tmp_path / "store", "intent") == []


def test_an_adapter_is_published_as_it_is(run, tmp_path):
    from serving_stack.export import ADAPTERS

    run("add", ADAPTERS / "2", "--as-is", "--model", "intent-adapter")
    shown = rows(run, "show", "intent-adapter/1")
    assert set(shown["manifest"]["files"]) == {"adapter_config.json", "adapter_model.safetensors", "head.safetensors"}
    assert shown["base"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert shown["manifest"]["card"] == json.loads((ADAPTERS / "2" / "card.json").read_text())
    assert rows(run, "verify")[0]["refused"] is None


def test_a_published_version_of_another_store_is_taken_whole_or_not_at_all(run, tiny_export, tmp_path):
    other = publish(tmp_path / "other", "intent", 7, tiny_export, Fault(kind="slow", seconds=0.2))
    run("add", other)
    assert (tmp_path / "store" / "intent" / "1" / "fault.json").read_bytes() == (other / "fault.json").read_bytes()
    assert rows(run, "list")[0]["made_from"].startswith("intent/7 sha256:")
    (other / "tokenizer.json").chmod(0o644)
    (other / "tokenizer.json").write_text("{}")
    with pytest.raises(TrimtabError, match=r"tokenizer\.json is not the file that was published"):
        run("add", other)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what to add"),
        (["x", "--adapter", "1"], "say what to add"),
        (["nowhere"], "nowhere is no folder"),
        (["--adapter", "99"], "there is no adapter 99"),
        (["."], "is not an exported model"),
        ([".", "--card", "nowhere.json"], "is no result card: it is not there"),
        ([".", "--sign-key", "nowhere.pem"], "is no readable key"),
    ],
)
def test_what_cannot_be_added_is_said(run, arguments, words):
    with pytest.raises(TrimtabError, match=words):
        run("add", *arguments)


def test_remove_and_gc(run, tiny_export, tmp_path):
    for number in (1, 2, 3, 4):
        run("add", tiny_export, "--version", number)
    assert "intent/4 is removed" in run("remove", "intent/4")
    said = rows(run, "gc", "--keep", 1, "--needed", "intent/1", "--dry-run")
    assert [(r["name"], r["free"]) for r in said] == [("intent/3", False), ("intent/2", True), ("intent/1", False)]
    assert "nothing was touched" in run("gc", "--keep", 1, "--dry-run")
    assert versions(tmp_path / "store", "intent") == [1, 2, 3]
    run("gc", "--keep", 1, "--needed", "intent/1")
    assert versions(tmp_path / "store", "intent") == [1, 3]
    with pytest.raises(Missing):
        run("remove", "intent/2")


def test_a_broken_version_is_listed_as_such(run, tiny_export, tmp_path):
    run("add", tiny_export)
    (tmp_path / "store" / "intent" / "1" / "manifest.json").unlink()
    assert "broken" in run("list")
    assert "manifest.json is missing" in rows(run, "list")[0]["error"]


def test_a_manifest_cannot_speak_to_the_terminal(run, tiny_export):
    run("add", tiny_export, "--made-by", "ada\x1b]0;title\x07[bold]")
    assert "\x1b" not in run("show", "intent/1")
    assert "[bold]" in run("show", "intent/1")


def test_the_shipped_adapters_are_listed(run):
    from serving_stack.export import ADAPTERS

    listed = run("list", "--shipped")
    for card in ADAPTERS.glob("*/card.json"):
        assert f"{json.loads(card.read_text())['validation_accuracy']:.2%}" in listed

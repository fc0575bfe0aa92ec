"""What stands between the store and Triton: a version is checked and held, then the program begins; or it says why not."""

import os
import subprocess
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from serving_stack.repository import publish
from serving_stack.repository_launch import admit, command
from serving_stack.repository_signing import signer
from serving_stack.repository_use import in_use
from trimtab.errors import Missing, TrimtabError


@pytest.fixture
def store(tmp_path, tiny_export):
    publish(tmp_path / "store", "intent", 1, tiny_export)
    return tmp_path / "store"


def changed(file, change):
    content = bytearray(file.read_bytes())
    change(content)
    file.chmod(0o644)
    file.write_bytes(content)


def flip(content):
    content[len(content) // 2] ^= 1


def test_a_whole_version_is_held(store):
    held = admit(store, "intent", 1, None, False)
    assert in_use(store / "intent" / "1")
    os.close(held)
    assert in_use(store / "intent" / "1") is False


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "intents.json", "model.py"])
def test_one_changed_bit_in_any_file_is_refused(store, name):
    changed(store / "intent" / "1" / name, flip)
    with pytest.raises(TrimtabError, match=f"{name} is not the file that was published: its SHA-256 is another"):
        admit(store, "intent", 1, None, False)


def test_a_version_of_the_wrong_shape_that_was_published_all_the_same_is_refused(tmp_path, write_tiny):
    folder = tmp_path / "odd"
    folder.mkdir()
    write_tiny(folder, classes=4)
    publish(tmp_path / "store", "intent", 1, folder)
    with pytest.raises(TrimtabError, match="wrong shape: two texts give"):
        admit(tmp_path / "store", "intent", 1, None, False)


def test_a_version_that_is_not_there_or_went_is_said(store):
    with pytest.raises(Missing):
        admit(store, "intent", 2, None, False)


@pytest.mark.integration
class TestProcess:
    def run(self, store, *, keys=None, required=False, program=("/bin/echo", "--served", "it")):
        argv = command(store, "intent", 1, list(program), trusted_keys=keys, require_signature=required)
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)

    def test_it_becomes_the_program_with_its_arguments(self, store):
        done = self.run(store)
        assert (done.returncode, done.stdout) == (0, "--served it\n"), done.stderr

    def test_it_refuses_in_one_line_and_runs_nothing(self, store):
        changed(store / "intent" / "1" / "model.onnx", flip)
        done = self.run(store)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("trimtab: version 1 of intent is refused: version 1 of intent is broken: model.onnx is not")
        assert done.stderr.count("\n") == 1

    def test_signatures_are_checked_where_keys_are_named(self, store, tmp_path, tiny_export):
        key = Ed25519PrivateKey.generate()
        private, keys = tmp_path / "key.pem", tmp_path / "keys"
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        private.chmod(0o600)
        keys.mkdir()
        (keys / "key.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        assert "is not signed, and here a signature is required" in self.run(store, keys=keys, required=True).stderr
        publish(tmp_path / "signed", "intent", 1, tiny_export, signer=signer(private))
        assert self.run(tmp_path / "signed", keys=keys, required=True).returncode == 0
        assert "no folder of trusted keys is named" in self.run(tmp_path / "signed", required=True).stderr

    def test_the_version_is_in_use_for_as_long_as_the_program_runs(self, store):
        argv = command(store, "intent", 1, ["/bin/sleep", "600"], trusted_keys=None, require_signature=False)
        process = subprocess.Popen(argv)
        try:
            while not in_use(store / "intent" / "1"):
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
        assert in_use(store / "intent" / "1") is False

"""A signature vouches for a whole version under its number; whoever is not trusted, or signed something else, is not believed."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from serving_stack.repository import Origin, publish, publish_files, verify
from serving_stack.repository_signing import Trust, key_id, read_signature, signer, trust
from trimtab.errors import Missing, TrimtabError


def private_pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def keys(tmp_path):
    """Private keys `alice.pem` and `mallory.pem`; only Alice's public key lies in `trusted/`."""
    (tmp_path / "trusted").mkdir()
    for name in ("alice", "mallory"):
        key = ed25519.Ed25519PrivateKey.generate()
        (tmp_path / f"{name}.pem").write_bytes(private_pem(key))
        (tmp_path / f"{name}.pem").chmod(0o600)
        if name == "alice":
            (tmp_path / "trusted" / "alice.pem").write_bytes(public_pem(key))
    return tmp_path


def add(keys, version=1, who="alice", text=b"weights", store="store"):
    key = signer(keys / f"{who}.pem") if who else None
    return publish_files(keys / store, "intent", version, {"weights.txt": text}, origin=Origin(), signer=key)


def test_a_signed_version_is_believed_and_says_by_which_key(keys):
    add(keys)
    believed = trust(keys / "trusted", required=True)
    assert verify(keys / "store", "intent", 1, believed) == signer(keys / "alice.pem").key_id
    assert verify(keys / "store", "intent", 1) is None, "nobody asked"


def test_an_unsigned_version_is_refused_only_where_a_signature_is_required(keys):
    add(keys, who=None)
    assert verify(keys / "store", "intent", 1, trust(keys / "trusted", required=False)) is None
    with pytest.raises(TrimtabError, match="version 1 of intent is not signed, and here a signature is required"):
        verify(keys / "store", "intent", 1, trust(keys / "trusted", required=True))


@pytest.mark.parametrize("required", [True, False])
def test_a_stranger_s_signature_is_refused(keys, required):
    add(keys, who="mallory")
    with pytest.raises(TrimtabError, match="is signed with key [0-9a-f]{16}, which is not trusted here"):
        verify(keys / "store", "intent", 1, trust(keys / "trusted", required))


def test_a_stranger_who_calls_himself_by_a_trusted_name_is_refused(keys):
    folder = add(keys, who="mallory")
    said = json.loads((folder / "manifest.sig").read_bytes())
    (folder / "manifest.sig").unlink()
    (folder / "manifest.sig").write_text(json.dumps(said | {"key": signer(keys / "alice.pem").key_id}))
    with pytest.raises(TrimtabError, match="is signed wrongly: its manifest is not the one"):
        verify(keys / "store", "intent", 1, trust(keys / "trusted", required=True))


def test_a_manifest_that_was_changed_to_fit_changed_files_is_refused(keys):
    folder, other = add(keys), add(keys, who=None, text=b"WEIGHTS", store="other")
    for name in ("weights.txt", "manifest.json"):
        (folder / name).unlink()
        (folder / name).write_bytes((other / name).read_bytes())
    verify(keys / "store", "intent", 1)  # whole, by its own account
    with pytest.raises(TrimtabError, match="is signed wrongly"):
        verify(keys / "store", "intent", 1, trust(keys / "trusted", required=True))


def test_a_signature_cannot_be_moved_to_another_version(keys):
    one, two = add(keys), add(keys, version=2, who=None)
    (two / "manifest.sig").write_bytes((one / "manifest.sig").read_bytes())
    with pytest.raises(TrimtabError, match="is signed wrongly"):
        verify(keys / "store", "intent", 2, trust(keys / "trusted", required=True))


def test_a_version_that_is_there_unsigned_is_not_signed_afterwards(keys):
    add(keys, who=None)
    with pytest.raises(TrimtabError, match="is published already, without this signature"):
        add(keys)
    add(keys, version=2)
    assert add(keys, version=2).name == "2", "the same again, signed by the same key"


def test_a_drill_made_of_a_signed_version_is_not_signed(keys, tiny_export):
    signed = publish(keys / "store", "intent", 1, tiny_export, signer=signer(keys / "alice.pem"))
    publish(keys / "drills", "intent", 1, signed)
    with pytest.raises(TrimtabError, match="is not signed"):
        verify(keys / "drills", "intent", 1, trust(keys / "trusted", required=True))


@given(
    st.one_of(st.binary(max_size=200), st.text(max_size=80).map(lambda t: json.dumps({"key": "0" * 16, "signature": t}).encode()))
)
def test_whatever_lies_in_a_signature_file_is_refused_in_words(content):
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(TrimtabError):
        Trust({key_id(key.public_key()): key.public_key(), "0" * 16: key.public_key()}, True).check(b"{}", content, "it")


def test_a_signature_of_right_length_that_is_wrong_is_refused(keys):
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    forged = json.dumps({"key": key_id(key), "signature": base64.b64encode(bytes(64)).decode()}).encode()
    assert read_signature(forged, "it").key == key_id(key)
    with pytest.raises(TrimtabError, match="it is signed wrongly"):
        Trust({key_id(key): key}).check(b"{}", forged, "it")


class TestKeys:
    def test_a_private_key_that_others_can_read_is_refused(self, keys):
        (keys / "alice.pem").chmod(0o644)
        with pytest.raises(TrimtabError, match="a private key that others can read: chmod 600"):
            signer(keys / "alice.pem")

    @pytest.mark.parametrize("kind", ["rsa", "public", "garbage", "empty"])
    def test_what_is_no_private_key_is_said_and_not_shown(self, keys, kind):
        content = {
            "rsa": private_pem(rsa.generate_private_key(65537, 1024)),
            "public": (keys / "trusted" / "alice.pem").read_bytes(),
            "garbage": b"-----BEGIN PRIVATE KEY-----\nsecret words\n-----END PRIVATE KEY-----\n",
            "empty": b"",
        }[kind]
        (keys / "odd.pem").write_bytes(content)
        (keys / "odd.pem").chmod(0o600)
        with pytest.raises(TrimtabError, match="is no Ed25519 private key in PEM") as refused:
            signer(keys / "odd.pem")
        assert "secret" not in str(refused.value)

    def test_an_encrypted_key_is_said(self, keys):
        pem = private_pem(ed25519.Ed25519PrivateKey.generate(), BestAvailableEncryption(b"word"))
        (keys / "odd.pem").write_bytes(pem)
        (keys / "odd.pem").chmod(0o600)
        with pytest.raises(TrimtabError, match="is encrypted"):
            signer(keys / "odd.pem")

    def test_a_key_that_is_not_there_is_said(self, keys):
        with pytest.raises(Missing, match="is no readable key"):
            signer(keys / "nobody.pem")

    def test_a_private_key_among_the_trusted_ones_is_said(self, keys):
        (keys / "trusted" / "b.pem").write_bytes((keys / "alice.pem").read_bytes())
        with pytest.raises(TrimtabError, match=r"b\.pem is no Ed25519 public key"):
            trust(keys / "trusted", required=True)

    def test_required_without_keys_can_accept_nothing_and_says_so(self, tmp_path):
        with pytest.raises(TrimtabError, match="no folder of trusted keys is named"):
            trust(None, required=True)
        with pytest.raises(Missing, match="is no folder"):
            trust(tmp_path / "nowhere", required=False)
        with pytest.raises(Missing, match="holds no trusted public key"):
            trust(tmp_path, required=False)
        assert trust(None, required=False) is None

"""Ed25519 signatures of published versions: who vouches for a manifest, and whom a server believes.

The signature covers every byte of `manifest.json`, so the hash of every file, the model and the number: it cannot be moved to
another version. Keys are PEM files (`openssl genpkey -algorithm ed25519`).
"""

from __future__ import annotations

import base64
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from serving_stack.repository_manifest import SIGNATURE
from trimtab.errors import Missing, TrimtabError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_log = logging.getLogger(__name__)

_PURPOSE = b"trimtab model version 1\n"
"""Before the signed bytes, so that a signature made for anything else is none of a version."""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What `manifest.sig` holds."""

    algorithm: Literal["Ed25519"] = "Ed25519"
    key: str
    """Which key: the first 16 digits of the SHA-256 of its 32 bytes."""
    signature: str
    """Base64."""


@dataclass(frozen=True)
class Signer:
    """A private key, read from a file."""

    key: Ed25519PrivateKey
    key_id: str

    def sign(self, manifest: bytes) -> bytes:
        """The content of `manifest.sig` for these bytes of a manifest."""
        signature = base64.b64encode(self.key.sign(_PURPOSE + manifest)).decode()
        return msgspec.json.encode(Signature(key=self.key_id, signature=signature)) + b"\n"


@dataclass(frozen=True)
class Trust:
    """Whom a server believes: the trusted keys by their id, and whether a version without a signature is refused."""

    keys: dict[str, Ed25519PublicKey]
    required: bool = False

    def check(self, manifest: bytes, signature: bytes | None, name: str) -> str | None:
        """The id of the key that signed, None for an unsigned version that needs no signature. Raises `TrimtabError`."""
        from cryptography.exceptions import InvalidSignature

        if signature is None:
            if self.required:
                raise TrimtabError(f"{name} is not signed, and here a signature is required")
            return None
        said = read_signature(signature, name)
        key = self.keys.get(said.key)
        if key is None:
            known = ", ".join(sorted(self.keys)) or "none"
            raise TrimtabError(f"{name} is signed with key {said.key}, which is not trusted here (trusted: {known})")
        try:
            key.verify(base64.b64decode(said.signature), _PURPOSE + manifest)
        except InvalidSignature:
            raise TrimtabError(f"{name} is signed wrongly: its manifest is not the one that key {said.key} signed") from None
        return said.key


def signature_of(folder: Path) -> bytes | None:
    """The content of a version's signature file; None when it has none."""
    try:
        return (folder / SIGNATURE).read_bytes()
    except FileNotFoundError:
        return None


def read_signature(content: bytes, name: str) -> Signature:
    """A signature from its bytes, not checked against anything; `name` is what an error names. Raises `TrimtabError`."""
    try:
        said = msgspec.json.decode(content, type=Signature)
        if len(base64.b64decode(said.signature, validate=True)) == 64:
            return said
    except (msgspec.DecodeError, ValueError):
        pass
    raise TrimtabError(f"{name} is signed wrongly: {SIGNATURE} is not readable as an Ed25519 signature")


def signer(file: Path) -> Signer:
    """The private key in a PEM file that only its owner can read. Raises `TrimtabError`, never with the key in it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(file)
    if file.stat().st_mode & 0o077:
        raise TrimtabError(f"{file} is a private key that others can read: chmod 600 {file}")
    key: object = None
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:
        raise TrimtabError(f"{file} is encrypted: give a key without a password, kept where only its owner reads it") from None
    except Exception as error:  # the library names a dozen kinds; said below, without what it read
        _log.debug("%s is no key: %s", file, type(error).__name__)
    if not isinstance(key, Ed25519PrivateKey):
        raise TrimtabError(f"{file} is no Ed25519 private key in PEM: openssl genpkey -algorithm ed25519 -out {file}")
    return Signer(key, key_id(key.public_key()))


def trust(folder: Path | None, required: bool) -> Trust | None:
    """The public keys (`*.pem`) in a folder; None when neither keys nor signatures are asked for. Raises `TrimtabError`."""
    if folder is None:
        if required:
            raise TrimtabError("a signature is required, but no folder of trusted keys is named: nothing could be accepted")
        return None
    if not folder.is_dir():
        raise Missing(f"{folder} is no folder: trusted public keys (*.pem) are looked for there")
    keys = [_public(file) for file in sorted(folder.glob("*.pem"))]
    if not keys:
        raise Missing(f"{folder} holds no trusted public key (*.pem)")
    return Trust({key_id(key): key for key in keys}, required)


def key_id(key: Ed25519PublicKey) -> str:
    """The name of a key in signatures and messages: the first 16 digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _public(file: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content, key = _read(file), None
    try:
        key = load_pem_public_key(content)
    except Exception as error:  # as above
        _log.debug("%s is no key: %s", file, type(error).__name__)
    if not isinstance(key, Ed25519PublicKey):
        raise TrimtabError(f"{file} is no Ed25519 public key in PEM: openssl pkey -in PRIVATE -pubout -out {file}")
    return key


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Missing(f"{file} is no readable key: {error.strerror}") from error

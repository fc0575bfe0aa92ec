"""The manifest of a published version: what it is made of, and who made it from what. JSON, written once, never changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from trimtab.errors import Missing, TrimtabError

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`files` and `sizes` name every file of the version but the manifest and its signature; what is not known is None."""

    schema: int = 1
    model: str
    version: int
    files: dict[str, str]
    """File name -> SHA-256, hexadecimal."""
    sizes: dict[str, int] = {}
    """File name -> bytes; empty in manifests of before sizes were kept."""
    base: str | None = None
    """The base model: a name, or `model/version` of this repository, which then is not removed before this version."""
    card: dict[str, Any] | None = None
    """The result card: data, recipe, accuracy, as tuning wrote it."""
    made_from: str | None = None
    made_by: str | None = None
    made_at: Annotated[float, msgspec.Meta(ge=0, le=1e11)] | None = None
    """Unix seconds."""

    @property
    def digest(self) -> str:
        """The content's address, `sha256:` and 64 digits: equal for equal files, base and card, whatever number they have."""
        content = {"files": self.files, "sizes": self.sizes, "base": self.base, "card": self.card}
        return "sha256:" + hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()

    @property
    def total_bytes(self) -> int | None:
        """All files together; None where sizes were not kept."""
        return sum(self.sizes.values()) if self.sizes else None


def encode(manifest: Manifest) -> bytes:
    """As it is stored and signed: indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a version's folder. Raises `Missing` when there is none, `TrimtabError` when it is not readable."""
    return decode(manifest_bytes(folder), folder)


def manifest_bytes(folder: Path) -> bytes:
    """The manifest as it is stored, unread. Raises `Missing`."""
    try:
        return (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise Missing(f"{folder} is broken: {MANIFEST} is missing") from None
    except OSError as error:
        raise TrimtabError(f"{folder} is broken: {MANIFEST} is not readable: {error.strerror}") from error


def decode(content: bytes, folder: Path) -> Manifest:
    """A manifest from its bytes; `folder` is what an error names. Raises `TrimtabError`."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TrimtabError(f"{folder} is broken: {MANIFEST} is not readable: {error}") from error
    if (odd := next((name for name in manifest.files if not is_plain(name)), None)) is not None:
        raise TrimtabError(f"{folder} is broken: {MANIFEST} is not readable: {odd!r} is no name of a file in a version")
    if manifest.sizes and manifest.sizes.keys() != manifest.files.keys():
        raise TrimtabError(f"{folder} is broken: {MANIFEST} is not readable: its sizes are not those of its files")
    return manifest


def is_plain(name: str) -> bool:
    """Whether a name can be that of a version's file: one step, visible, and not what the repository itself writes."""
    return bool(name) and not name.startswith(".") and not set(name) & {"/", "\\", "\0"} and name not in (MANIFEST, SIGNATURE)

"""The store of published model versions: each immutable, whole, and checkable by SHA-256 and by its signature.

store/<model>/<version>/  model.py faults.py ... model.onnx tokenizer.json intents.json [fault.json] manifest.json [manifest.sig]
store/<model>/.removed/<version>.json  what a removed version was: its number is not used again

A version is written aside, brought to the disk, then renamed: a reader sees all of it or nothing, also after a `kill -9` or
a power cut.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from serving_stack.adapters_content import is_set, set_files
from serving_stack.export import INT8, INTENTS, TOKENIZER
from serving_stack.repository_files import full_disk_in_words, locked, put, sha256, sync_folder
from serving_stack.repository_formats import CODE, refuse_foreign_code, refuse_unsafe
from serving_stack.repository_manifest import (
    MANIFEST,
    SIGNATURE,
    Manifest,
    decode,
    encode,
    is_plain,
    manifest_bytes,
    read_manifest,
)
from serving_stack.repository_shapes import check_contents
from serving_stack.repository_signing import Signer, Trust, read_signature, signature_of
from trimtab.errors import Missing, TrimtabError

if TYPE_CHECKING:
    from serving_stack.fault import Fault  # pydantic: as much time as all else before a replica starts

REMOVED = ".removed"
_MODEL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Origin:
    """Where a version comes from; what is None is not known, or (in `publish`) taken over from the version it is made of."""

    base: str | None = None
    card: dict[str, Any] | None = None
    made_from: str | None = None
    made_by: str | None = None
    made_at: float | None = None
    """Unix seconds; None: now."""


UNKNOWN = Origin()


def publish(
    store: Path,
    model: str,
    version: int | None,
    exported: Path,
    fault: Fault | None = None,
    *,
    origin: Origin = UNKNOWN,
    signer: Signer | None = None,
    check: bool = False,
) -> Path:
    """Add a version made of an exported folder (`ensure_exported`) or of another published version, and return its folder.

    Without `version` it gets the next number, or keeps that of a version with the same content. With a `fault` every replica of
    the version has it. For the rest see `publish_files`.
    """
    _check(model, version)
    before = read_manifest(exported) if (exported / MANIFEST).is_file() else None
    files: dict[str, Path | bytes] = {}
    files |= set_files(exported) if is_set(exported) else _network_files(exported, before is not None)
    if fault is not None:
        files["fault.json"] = fault.json_text().encode()
    return publish_files(store, model, version, files, origin=_completed(origin, before, exported), signer=signer, check=check)


def _network_files(exported: Path, published: bool) -> dict[str, Path]:
    weights = "model.onnx" if published else INT8  # an export keeps float32 under that name
    files = {"model.onnx": exported / weights, TOKENIZER: exported / TOKENIZER, INTENTS: exported / INTENTS}
    if missing := next((file.name for file in files.values() if not file.is_file()), None):
        raise Missing(f"{exported} is not an exported model: {missing} is missing")
    return files | {code.name: code for code in sorted(CODE.glob("*.py"))}


def publish_files(
    store: Path,
    model: str,
    version: int | None,
    files: Mapping[str, Path | bytes],
    *,
    origin: Origin,
    signer: Signer | None = None,
    check: bool = False,
) -> Path:
    """Add a version made of exactly these files (name -> where to copy it from, or its content), and return its folder.

    The version appears whole or not at all. Publishing the same content again changes nothing; other content under a number that
    exists, or was removed, raises `TrimtabError`, as do a wrong model name or number, a file that could run code when it is
    read, and a full disk. With `check` formats and shape are checked too, on the copy, as every server does before it serves it.
    """
    _check(model, version)
    if (odd := next((name for name in files if not is_plain(name)), None)) is not None:
        raise TrimtabError(f"{odd!r} is no name for a file of a version")
    if not files:
        raise TrimtabError("a version without a file is none")
    shelf = store / model
    with full_disk_in_words(store):
        if not shelf.is_dir():
            shelf.mkdir(parents=True, exist_ok=True)
            sync_folder(store)
        with locked(shelf, alone=False):  # gc takes nothing away meanwhile
            half = Path(tempfile.mkdtemp(prefix=f".{version or 'next'}-", dir=shelf))
            try:
                about = {name: put(source, half / name) for name, source in files.items()}
                for name in files:
                    refuse_unsafe(half / name)
                    refuse_foreign_code(half / name)
                if check:
                    check_contents(half, sorted(files))
                manifest = Manifest(
                    model=model,
                    version=version or 0,
                    files={name: about[name][0] for name in sorted(about)},
                    sizes={name: about[name][1] for name in sorted(about)},
                    base=origin.base,
                    card=origin.card,
                    made_from=origin.made_from,
                    made_by=origin.made_by,
                    made_at=time.time() if origin.made_at is None else origin.made_at,
                )
                return _settle(store, half, manifest, version, signer)
            finally:
                shutil.rmtree(half, ignore_errors=True)


def versions(store: Path, model: str) -> list[int]:
    """The published versions, oldest number first; none when the store or the model is not there."""
    folder = store / model
    return sorted(int(f.name) for f in folder.iterdir() if f.name.isdigit() and f.is_dir()) if folder.is_dir() else []


def models(store: Path) -> list[str]:
    """The models in a store that have a version, by name."""
    found = (f.name for f in store.iterdir() if _MODEL_NAME.fullmatch(f.name)) if store.is_dir() else ()
    return sorted(name for name in found if versions(store, name))


def verify(store: Path, model: str, version: int, trust: Trust | None = None) -> str | None:
    """Check that a version is exactly what was published; the id of the trusted key that signed it, None if unasked or unsigned.

    Raises `Missing` when the version or one of its files is not there, and `TrimtabError` when a file is not the published one or
    is in no manifest, when the version was published under another name, or when `trust` does not accept its signature.
    """
    _check(model, version)
    folder, name = store / model / str(version), f"version {version} of {model}"
    if not folder.is_dir():
        raise Missing(f"{name} is not in {store}: it has {versions(store, model) or 'none'}")
    content = manifest_bytes(folder)
    key = trust.check(content, signature_of(folder), name) if trust is not None else None
    manifest = decode(content, folder)
    if (manifest.model, manifest.version) != (model, version):
        raise TrimtabError(f"{name} is broken: what lies there was published as version {manifest.version} of {manifest.model}")
    for file, digest in manifest.files.items():
        _verify_file(folder / file, digest, manifest.sizes.get(file), name)
    if extra := sorted({f.name for f in folder.iterdir()} - manifest.files.keys() - {MANIFEST, SIGNATURE}):
        raise TrimtabError(f"{name} is broken: {extra[0]} is not in its manifest")
    return key


def _verify_file(file: Path, digest: str, size: int | None, name: str) -> None:
    if file.is_symlink():
        raise TrimtabError(f"{name} is broken: {file.name} is a link to elsewhere")
    if not file.is_file():
        raise Missing(f"{name} is broken: {file.name} is missing")
    has = file.stat().st_size
    if size is not None and has != size:
        how = "truncated" if has < size else "longer"
        raise TrimtabError(
            f"{name} is broken: {file.name} is not the file that was published: {how}, {has} bytes instead of {size}"
        )
    if sha256(file) != digest:
        raise TrimtabError(f"{name} is broken: {file.name} is not the file that was published: its SHA-256 is another")


def _settle(store: Path, half: Path, manifest: Manifest, version: int | None, signer: Signer | None) -> Path:
    """Give the half-made version its number and its place, or find that it is there already."""
    shelf = half.parent
    if version is None and (same := _same(shelf, manifest)) is not None:
        return _there(shelf / str(same), manifest, signer)
    while True:
        number = version or max([0, *versions(store, manifest.model), *_removed(shelf)]) + 1
        folder = shelf / str(number)
        if not folder.exists() and (shelf / REMOVED / f"{number}.json").exists():
            raise TrimtabError(f"version {number} of {manifest.model} was removed: choose another number")
        _write_manifest(half, msgspec.structs.replace(manifest, version=number), signer)
        if not folder.exists():
            try:
                half.rename(folder)
                sync_folder(shelf)
                return folder
            except OSError:  # another process was first
                if not folder.exists():
                    raise
        if version is not None:
            return _there(folder, manifest, signer)
        if (same := _same(shelf, manifest)) is not None:
            return _there(shelf / str(same), manifest, signer)


def _write_manifest(half: Path, manifest: Manifest, signer: Signer | None) -> None:
    content = encode(manifest)
    for name, text in ((MANIFEST, content), (SIGNATURE, signer.sign(content) if signer else None)):
        (half / name).unlink(missing_ok=True)  # of a number that another process took
        if text is not None:
            put(text, half / name)
    half.chmod(0o755)
    sync_folder(half)


def _there(folder: Path, manifest: Manifest, signer: Signer | None) -> Path:
    """A version that is there already, when it is the one that was to be added."""
    there, name = read_manifest(folder), f"version {folder.name} of {manifest.model}"
    if there.digest != manifest.digest:
        raise TrimtabError(f"{name} is published already with other content: choose another number")
    if signer is not None:
        signed = signature_of(folder)
        if signed is None or read_signature(signed, name).key != signer.key_id:
            raise TrimtabError(
                f"{name} is published already, without this signature: a version never changes, choose another number"
            )
    return folder


def _same(shelf: Path, manifest: Manifest) -> int | None:
    """The newest version with this content."""
    for number in reversed(versions(shelf.parent, shelf.name)):
        try:
            if read_manifest(shelf / str(number)).digest == manifest.digest:
                return number
        except TrimtabError:  # a broken one is not the same as anything
            continue
    return None


def _removed(shelf: Path) -> list[int]:
    return [int(f.stem) for f in (shelf / REMOVED).glob("*.json") if f.stem.isdigit()]


def _completed(origin: Origin, before: Manifest | None, source: Path) -> Origin:
    """What nobody said is taken from the version that a version is made of, or is the source's name."""
    if before is None:
        return origin if origin.made_from else replace(origin, made_from=source.name)
    return replace(
        origin,
        base=origin.base or before.base,
        card=origin.card if origin.card is not None else before.card,
        made_from=origin.made_from or f"{before.model}/{before.version} {before.digest}",
    )


def _check(model: str, version: int | None) -> None:
    if not _MODEL_NAME.fullmatch(model):
        raise TrimtabError(f"{model!r} is no model name: use small letters, digits, - and _, beginning with a letter")
    if version is not None and version < 1:
        raise TrimtabError(f"{version} is no version: versions count from 1")

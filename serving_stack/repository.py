"""The store of published model versions: each immutable, whole, and checkable by SHA-256.

store/<model>/<version>/  model.py faults.py model.onnx tokenizer.json intents.json [fault.json] manifest.json
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from serving_stack.export import INT8, INTENTS, TOKENIZER
from serving_stack.fault import Fault
from trimtab.errors import Missing, TrimtabError

CODE = Path(__file__).parent / "intent_model"
MANIFEST = "manifest.json"
_MODEL_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def publish(store: Path, model: str, version: int, exported: Path, fault: Fault | None = None) -> Path:
    """Add a version made of an exported folder (`ensure_exported`) or of another published version, and return its folder.

    The version appears whole or not at all. Publishing the same content again changes nothing; other content under a number
    that exists raises `TrimtabError`, as does a wrong model name or number. With a `fault` every replica of the version has it.
    """
    _check(model, version)
    folder = store / model / str(version)
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{version}-", dir=folder.parent))
    try:
        _fill(half, exported, fault)
        manifest = {"model": model, "version": version, "files": {f.name: _sha256(f) for f in sorted(half.iterdir())}}
        (half / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for file in half.iterdir():
            file.chmod(0o444)
        half.chmod(0o755)
        if not folder.exists():
            try:
                half.rename(folder)
                return folder
            except OSError:  # another process was first
                if not folder.exists():
                    raise
        if read_manifest(folder) != manifest:
            raise TrimtabError(f"version {version} of {model} is published already with other content: choose another number")
        return folder
    finally:
        shutil.rmtree(half, ignore_errors=True)


def versions(store: Path, model: str) -> list[int]:
    """The published versions, oldest number first; none when the store or the model is not there."""
    folder = store / model
    return sorted(int(f.name) for f in folder.iterdir() if f.name.isdigit() and f.is_dir()) if folder.is_dir() else []


def verify(store: Path, model: str, version: int) -> None:
    """Raise `Missing` when the version or one of its files is not there, `TrimtabError` when a file is not the published one."""
    _check(model, version)
    folder = store / model / str(version)
    if not folder.is_dir():
        raise Missing(f"version {version} of {model} is not in {store}: it has {versions(store, model) or 'none'}")
    for name, digest in read_manifest(folder)["files"].items():
        if not (folder / name).is_file():
            raise Missing(f"version {version} of {model} is broken: {name} is missing")
        if _sha256(folder / name) != digest:
            raise TrimtabError(f"version {version} of {model} is broken: {name} is not the file that was published")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a version's folder: model, version, files (name -> SHA-256)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if isinstance(manifest["files"], dict):
            return dict(manifest)
    except FileNotFoundError:
        raise Missing(f"{folder} is broken: {MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise TrimtabError(f"{folder} is broken: {MANIFEST} is not readable")


def _fill(folder: Path, exported: Path, fault: Fault | None) -> None:
    weights = "model.onnx" if (exported / MANIFEST).is_file() else INT8  # an export keeps float32 under that name
    for source, name in ((weights, "model.onnx"), (TOKENIZER, TOKENIZER), (INTENTS, INTENTS)):
        if not (exported / source).is_file():
            raise Missing(f"{exported} is not an exported model: {source} is missing")
        shutil.copyfile(exported / source, folder / name)
    for code in sorted(CODE.glob("*.py")):
        shutil.copyfile(code, folder / code.name)
    if fault is not None:
        (folder / "fault.json").write_text(fault.json_text(), encoding="utf-8")


def _check(model: str, version: int) -> None:
    if not _MODEL_NAME.fullmatch(model):
        raise TrimtabError(f"{model!r} is no model name: use small letters, digits, - and _, beginning with a letter")
    if version < 1:
        raise TrimtabError(f"{version} is no version: versions count from 1")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()

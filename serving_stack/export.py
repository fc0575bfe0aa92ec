"""From a shipped adapter to files that are served: ONNX in float32 and in int8, tokenizer, intents. Made once, then cached."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from serving_stack.banking import intents
from trimtab.cache import cache_folder
from trimtab.errors import Missing

ADAPTERS = Path(__file__).parent / "adapters"
FORMAT = 1
"""Raise this when the code below makes other files from the same adapter: old caches are then left alone."""

FLOAT, INT8, TOKENIZER, INTENTS = "model.onnx", "model.int8.onnx", "tokenizer.json", "intents.json"


def shipped() -> list[int]:
    """The adapters that the package carries, oldest first."""
    return sorted(int(folder.name) for folder in ADAPTERS.iterdir() if folder.name.isdigit()) if ADAPTERS.is_dir() else []


def default_cache() -> Path:
    """Where exported models are kept if nobody says otherwise: `models/` in TRIMTAB_CACHE or `~/.cache/trimtab`."""
    return cache_folder() / "models"


def adapter_for(version: int) -> int:
    """Which adapter a version of the model is made from: its own if one is shipped, else the newest. Versions count from 1."""
    numbers = shipped()
    if not numbers:
        raise Missing("no adapter is shipped with this installation: install trimtab from its repository, or run `trimtab tune`")
    return min(version, numbers[-1])


def ensure_exported(adapter: int, cache: Path, tell: Callable[[str], None] = lambda _: None) -> Path:
    """The folder with the exported files of a shipped adapter, under `cache`; exports them first if they are not there.

    Takes about half a minute the first time. A second caller, in this or another process, waits for the first; a process
    that dies half way leaves nothing that could be taken for a whole export. Raises `Missing` for an adapter that is not shipped
    or when the extra `train` (torch) is not installed.
    """
    source = ADAPTERS / str(adapter)
    if adapter not in shipped():
        raise Missing(f"there is no adapter {adapter}: shipped are {', '.join(map(str, shipped())) or 'none'}")
    return export_folder(source, cache, tell)


def export_folder(source: Path, cache: Path, tell: Callable[[str], None] = lambda _: None) -> Path:
    """Like `ensure_exported`, for the adapter in any folder (one just made by `trimtab tune`)."""
    try:
        from filelock import FileLock

        from serving_stack.onnx_files import base_weights, write
    except ImportError as error:
        raise Missing(f"exporting the model needs the extra `train`: pip install 'trimtab[train]' ({error})") from error

    done = cache / f"{source.name}-{_key(source, base_weights())}"
    if done.is_dir():
        return done
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{done.name}.lock"):
        if done.is_dir():
            return done
        half = Path(tempfile.mkdtemp(prefix=f".{done.name}-", dir=cache))
        try:
            write(source, half, tell)
            (half / INTENTS).write_text(json.dumps(intents()), encoding="utf-8")
            half.chmod(0o755)
            half.rename(done)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return done


def _key(source: Path, base: Path) -> str:
    """Changes with everything that the exported files depend on: adapter, base weights, intents, this code's format."""
    total = hashlib.sha256(f"{FORMAT}\n{intents()}".encode())
    for file in (source / "adapter_config.json", source / "adapter_model.safetensors", source / "head.safetensors", base):
        if not file.exists():
            raise Missing(f"{file} is missing: the adapter or the base model is not whole")
        with file.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()[:16]

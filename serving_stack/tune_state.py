"""What a tuning run keeps to resume: written so that a kill at any moment leaves the last whole epoch."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from serving_stack.recipe import Recipe
from trimtab.errors import TrimtabError

_FOLDER, _PROGRESS = "state", "progress.json"


@dataclass(frozen=True)
class About:
    """What a run depends on: nothing else may resume it."""

    recipe: Recipe
    data: str
    teachers: list[str]


def digests(folders: Sequence[Path]) -> list[str]:
    """A SHA-256 for each tuned folder: of its weights. Raises `TrimtabError` for a folder without."""
    found = []
    for folder in folders:
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise TrimtabError(f"{folder} holds no tuned model")
        total = hashlib.sha256()
        for file in files:
            total.update(file.read_bytes())
        found.append(total.hexdigest())
    return found


def exists(folder: Path) -> bool:
    """Whether there is an epoch to resume after."""
    return (folder / _FOLDER / _PROGRESS).exists()


def write(
    folder: Path, about: About, history: list[dict[str, float]], seconds: float, tensors: dict[str, Tensor], main: bool
) -> None:
    """Keep an epoch. Every process calls it, the main one writes."""
    if not main:
        return
    state = folder / _FOLDER
    state.mkdir(parents=True, exist_ok=True)
    name = f"epoch-{len(history):02d}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, state / name)
    temporary = state / "progress.tmp"
    rows = [{k: None if v != v else v for k, v in row.items()} for row in history]  # JSON has no NaN
    temporary.write_text(json.dumps({**asdict(about), "history": rows, "seconds": seconds, "tensors": name}, indent=1))
    temporary.replace(state / _PROGRESS)  # last: whoever reads it finds tensors that are whole
    for old in state.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink()


def read(folder: Path, about: About) -> tuple[list[dict[str, float]], float, dict[str, Tensor]] | None:
    """(history, seconds, tensors) of the last whole epoch; None at the start. Raises `TrimtabError` for another run's."""
    if not exists(folder):
        return None
    progress = folder / _FOLDER / _PROGRESS
    found = json.loads(progress.read_text())
    if {key: found.get(key) for key in asdict(about)} != asdict(about):
        raise TrimtabError(f"{folder} holds a run of other settings or data: choose another --out or delete it")
    history = [{k: float("nan") if v is None else v for k, v in row.items()} for row in found["history"]]
    tensors: dict[str, Tensor] = load_file(progress.parent / found["tensors"], device=str(torch.device("cpu")))
    return history, float(found["seconds"]), tensors


def forget_epochs(folder: Path, needed: set[int]) -> None:
    """Remove the weights of all other epochs."""
    for old in folder.glob("epoch-*"):
        if int(old.name.removeprefix("epoch-")) not in needed:
            shutil.rmtree(old)

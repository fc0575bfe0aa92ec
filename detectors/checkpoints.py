"""Finds the checkpoints that a job left behind."""

from __future__ import annotations

from pathlib import Path

_MAGIC = bytes.fromhex("4960672d")
"""How the metadata of every completed checkpoint of Flink begins."""


def completed(folder: Path) -> list[Path]:
    """The completed checkpoints of all earlier runs under `folder`, newest first; `<run>/chk-<n>` each.

    One whose metadata is missing or cut off at its head is no checkpoint. Damage further inside shows only when Flink reads it.
    """
    found = [metadata for metadata in folder.glob("*/chk-*/_metadata") if _begins_well(metadata)]
    return [metadata.parent for metadata in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def set_aside(checkpoint: Path) -> None:
    """It is not found any more; its files stay for whoever wants to look."""
    metadata = checkpoint / "_metadata"
    metadata.rename(metadata.with_name("_metadata.unusable"))


def _begins_well(metadata: Path) -> bool:
    try:
        with metadata.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False

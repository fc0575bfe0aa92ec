"""What an adapter set says: `adapters.json` in a version's folder, beside one base network.

The set names the version and the SHA-256 of every file of each adapter that it serves: its signature covers them all.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from serving_stack.export import TOKENIZER
from serving_stack.repository_formats import CODE, EDGE_CODE
from trimtab.errors import Missing, TrimtabError

SET, BASE = "adapters.json", "base.onnx"
_SHARED_CODE = ("batches.py", "faults.py", "network.py", "texts.py")
"""What both backends have."""


class AdapterFile(msgspec.Struct, frozen=True):
    """One file of an adapter as it was published."""

    sha256: str
    bytes: int


class ServedAdapter(msgspec.Struct, frozen=True):
    """The version of an adapter that a set serves, and its files."""

    version: int
    files: dict[str, AdapterFile]

    @property
    def bytes(self) -> int:
        """What has to be moved for it."""
        return sum(each.bytes for each in self.files.values())


class AdapterSet(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `adapters.json`. `default` answers requests that name no adapter."""

    schema: int = 1
    default: str | None = None
    adapters: dict[str, ServedAdapter]


def is_set(folder: Path) -> bool:
    """Whether a version's folder holds an adapter set."""
    return (folder / SET).is_file()


def read_set(folder: Path) -> AdapterSet:
    """The set in a version's folder. Raises `TrimtabError` when there is none, or none that makes sense."""
    try:
        found = msgspec.json.decode((folder / SET).read_bytes(), type=AdapterSet)
    except FileNotFoundError:
        raise Missing(f"{folder} holds no adapter set") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TrimtabError(f"{SET} is not readable: {error}") from None
    if not found.adapters:
        raise TrimtabError(f"{SET} names no adapter")
    if found.default is not None and found.default not in found.adapters:
        raise TrimtabError(f"{SET} has the default {found.default!r}, which it does not serve")
    return found


def set_code() -> dict[str, Path]:
    """The backend's files that a set carries, by name."""
    return {name: CODE / name for name in _SHARED_CODE} | {code.name: code for code in sorted(EDGE_CODE.glob("*.py"))}


def set_files(folder: Path) -> dict[str, Path]:
    """The files of which a version is made that serves the same set as the one in `folder`."""
    return {name: folder / name for name in (BASE, TOKENIZER, SET)} | set_code()


def lend_adapters(store: Path, model: str, to: Path) -> None:
    """Let a store that got only versions of `model` find everything else of `store` by links: adapters that its sets name."""
    for shelf in store.iterdir():
        if shelf.name != model and not shelf.name.startswith(".") and not (to / shelf.name).exists():
            (to / shelf.name).symlink_to(shelf.absolute())


def check_set(folder: Path, session: object) -> None:
    """Raise `TrimtabError` when a version's set and its base network cannot be served together."""
    from serving_stack.edge_model.adapters import FILES  # numpy: not for who only asks what a set serves

    takes = shapes_of(session)
    layers = {name.removesuffix(".down") for name in takes if name.endswith(".down")}
    wanted = {"ids", "mask", "head", "bias", *(f"{each}.down" for each in layers), *(f"{each}.up" for each in layers)}
    if not layers or set(takes) != wanted:
        raise TrimtabError(f"{BASE} has the wrong shape: it does not take adapters as the backend feeds them")
    for name, each in read_set(folder).adapters.items():
        if set(each.files) != set(FILES):
            raise TrimtabError(f"{SET}: {name} has not the files of an adapter ({', '.join(FILES)})")


def shapes_of(session: object) -> dict[str, list[int | str]]:
    """Name -> shape of what a network takes."""
    return {each.name: each.shape for each in session.get_inputs()}  # type: ignore[attr-defined]

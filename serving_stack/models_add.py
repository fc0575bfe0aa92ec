"""`trimtab models add`: from whatever lies in a folder to a published version that has been checked."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving_stack.export import ADAPTERS, WHOLE, default_cache, ensure_exported, export_folder, is_tuned, is_whole
from serving_stack.fault import Fault
from serving_stack.repository import UNKNOWN, Origin, publish, publish_files, verify
from serving_stack.repository_manifest import MANIFEST, is_plain, read_manifest
from serving_stack.repository_shapes import ADAPTER, ADAPTER_CONFIG, check_contents
from serving_stack.repository_signing import Signer
from trimtab.errors import Missing, TrimtabError

CARD = "card.json"


def add(
    store: Path,
    model: str,
    version: int | None,
    source: Path,
    *,
    as_is: bool = False,
    origin: Origin = UNKNOWN,
    signer: Signer | None = None,
    cache: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Check and publish `source`; the version's folder. What `origin` leaves open is taken from what lies there.

    `source` is an exported model, an adapter that tuning made (it is exported first), or a published version. `as_is` publishes
    the files of the folder as they are: an adapter for the edge, say. Raises `TrimtabError`, and then nothing is published.
    """
    if not source.is_dir():
        raise Missing(f"{source} is no folder with a model")
    origin = known_origin(origin, source)
    if as_is:
        return publish_files(store, model, version, _plain_files(source), origin=origin, signer=signer, check=True)
    if (source / MANIFEST).is_file():
        _verify_published(source)
        return publish(store, model, version, source, _fault(source), origin=origin, signer=signer, check=True)
    if (source / ADAPTER).is_file():
        check_contents(source, [ADAPTER, ADAPTER_CONFIG])
    elif is_whole(source):
        check_contents(source, list(WHOLE))
    if is_tuned(source):
        source = export_folder(source, cache or default_cache(), tell)
    return publish(store, model, version, source, origin=origin, signer=signer, check=True)


def add_shipped(
    store: Path,
    model: str,
    version: int | None,
    adapter: int,
    *,
    origin: Origin = UNKNOWN,
    signer: Signer | None = None,
    cache: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Export a shipped adapter and publish it, with its result card."""
    exported = ensure_exported(adapter, cache or default_cache(), tell)
    origin = replace(known_origin(origin, ADAPTERS / str(adapter)), made_from=f"shipped adapter {adapter}")
    return publish(store, model, version, exported, origin=origin, signer=signer, check=True)


def known_origin(origin: Origin, source: Path) -> Origin:
    """What `origin` leaves open: card and base from the folder, who and where from this process."""
    card = origin.card if origin.card is not None else read_card(source / CARD)
    base = origin.base or (card or {}).get("base") or _base_of_adapter(source)
    made_from = origin.made_from or (None if (source / MANIFEST).is_file() else source.absolute().name)
    return Origin(base and str(base), card, made_from, origin.made_by or whoever(), origin.made_at)


def read_card(file: Path) -> dict[str, Any] | None:
    """A result card; None when there is none. Raises `TrimtabError`."""
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TrimtabError(f"{file} is no result card: {error}") from error
    if not isinstance(card, dict):
        raise TrimtabError(f"{file} is no result card: it is no JSON object")
    return card


def whoever() -> str:
    """Who runs this process, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _base_of_adapter(source: Path) -> str | None:
    try:
        return str(json.loads((source / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _verify_published(source: Path) -> None:
    """A published version is taken only if it is whole: `source` must be `store/model/version`, as it was published."""
    manifest = read_manifest(source)
    folder = source.resolve()
    verify(folder.parent.parent, manifest.model, manifest.version)
    if folder != folder.parent.parent / manifest.model / str(manifest.version):
        raise TrimtabError(f"{source} was published as version {manifest.version} of {manifest.model}: give it that name")


def _fault(source: Path) -> Fault | None:
    file = source / "fault.json"
    try:
        return Fault.model_validate_json(file.read_bytes()) if file.is_file() else None
    except ValueError as error:
        raise TrimtabError(f"{file} is no fault") from error


def _plain_files(source: Path) -> dict[str, Path | bytes]:
    files: dict[str, Path | bytes] = {}
    for file in sorted(source.iterdir()):
        if file.name in (CARD, MANIFEST) or file.name.startswith("."):  # the card is in the manifest
            continue
        if not file.is_file() or not is_plain(file.name):
            raise TrimtabError(f"{file.name} is not accepted: a version holds files, no folders")
        files[file.name] = file
    return files

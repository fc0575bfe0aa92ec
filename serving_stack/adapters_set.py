"""Adapter sets: versions of a model that hold one base network and say which version of which adapter they serve.

A set is published, signed, checked, rolled out and rolled back like any other version; the adapters' own files stay versions of
their own, which a replica fetches when they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from serving_stack import banking
from serving_stack.adapters_base import ensure_base
from serving_stack.adapters_content import (
    BASE,
    SET,
    AdapterFile,
    AdapterSet,
    ServedAdapter,
    is_set,
    read_set,
    set_code,
    shapes_of,
)
from serving_stack.edge_model.adapters import FILES, Unfit, read
from serving_stack.export import ADAPTERS, INTENTS, TOKENIZER, shipped
from serving_stack.repository import Origin, publish_files, verify, versions
from serving_stack.repository_manifest import read_manifest
from serving_stack.repository_signing import Signer, Trust
from trimtab.errors import Missing, TrimtabError


def add(
    store: Path,
    name: str,
    source: Path,
    intents: Path | None,
    *,
    origin: Origin,
    signer: Signer | None = None,
    base: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Publish the adapter in the folder `source` as the next version of `name`, with its labels; the version's folder.

    `intents` None: those of the folder, or BANKING77's when the card says that it was tuned on that. It is tried on `base`, the
    folder of a base network (None: the usual one). Raises `TrimtabError` when it does not fit, and then nothing is published.
    """
    files: dict[str, Path | bytes] = {file: source / file for file in FILES}
    files[INTENTS] = _labels(source, intents, origin.card)
    for file, where in files.items():
        if isinstance(where, Path) and not where.is_file():
            raise Missing(f"{source} is no adapter for a set: {file} is missing")
    session = _session((base or ensure_base(tell=tell)) / BASE)
    try:
        read({file: w if isinstance(w, bytes) else w.read_bytes() for file, w in files.items()}, shapes_of(session))
    except Unfit as error:
        raise TrimtabError(f"{source} does not fit the base network: {error}") from error
    return publish_files(store, name, None, files, origin=origin, signer=signer, check=True)


def _labels(source: Path, intents: Path | None, card: Mapping[str, Any] | None) -> Path | bytes:
    if intents is not None or (source / INTENTS).is_file():
        return intents or source / INTENTS
    if ((card or {}).get("data") or {}).get("sha256") == banking.digest():
        return json.dumps(banking.intents()).encode()
    raise Missing(f"{source} does not say which labels its task has: name them with --intents")


def shipped_folder(number: int) -> Path:
    """Where an adapter lies that the package carries."""
    if number not in shipped():
        raise Missing(f"there is no adapter {number}: shipped are {', '.join(map(str, shipped())) or 'none'}")
    return ADAPTERS / str(number)


def parse(reference: str) -> tuple[str, int | None]:
    """`banking/2` or `banking`: the adapter, and its version if one is said."""
    name, slash, number = reference.partition("/")
    if slash and not (number.isascii() and number.isdigit()):
        raise TrimtabError(f"{reference!r} names no adapter: write name or name/version")
    return name, int(number) if slash else None


def release(
    store: Path,
    model: str,
    version: int | None,
    adapters: Mapping[str, int | None],
    base: Path | None,
    *,
    remove: frozenset[str] = frozenset(),
    default: str | None = None,
    trust: Trust | None = None,
    origin: Origin,
    signer: Signer | None = None,
) -> Path:
    """Publish the next version of a set: that of the newest one, with these adapters (None: their newest version) put in or out.

    Each new adapter is verified, by signature where `trust` asks for one, and tried on the base network. That is the one of the
    newest version; the first version takes it from the folder `base`. Returns the new version's folder.
    Raises `TrimtabError` when an adapter is not whole or does not fit, and then nothing is published.
    """
    before = newest(store, model)
    old = read_set(before) if before is not None else AdapterSet(adapters={})
    served, usual = dict(old.adapters), default or old.default
    base = before or base
    if base is None:
        raise Missing(f"{model} has no version that is a set yet: its first one needs a base network")
    if strange := sorted(remove - served.keys()):
        raise Missing(f"{strange[0]} is not in the set: it cannot be taken out")
    for name in remove:
        del served[name]
    session = _session(base / BASE)
    for name, number in adapters.items():
        served[name] = examined(store, name, number, session, trust)
    content = AdapterSet(default=usual if usual in served else None, adapters=dict(sorted(served.items())))
    if default is not None and default not in served:
        raise Missing(f"the default {default!r} is not in the set")
    if not served:
        raise TrimtabError("a set without an adapter serves nothing")
    files: dict[str, Path | bytes] = {
        BASE: base / BASE,
        TOKENIZER: base / TOKENIZER,
        SET: msgspec.json.format(msgspec.json.encode(content), indent=1),
    }
    files |= set_code()
    return publish_files(store, model, version, files, origin=origin, signer=signer, check=True)


def examined(store: Path, name: str, version: int | None, session: object, trust: Trust | None) -> ServedAdapter:
    """One adapter as a set would name it, after every check. Raises `TrimtabError`."""
    number = version or max(versions(store, name), default=0)
    if not number:
        raise Missing(f"there is no adapter {name} in {store}: add it with trimtab adapters add")
    verify(store, name, number, trust)
    folder = store / name / str(number)
    manifest = read_manifest(folder)
    if missing := [file for file in FILES if file not in manifest.files]:
        raise TrimtabError(f"version {number} of {name} is no adapter for a set: {missing[0]} is not in it")
    try:
        read({file: (folder / file).read_bytes() for file in FILES}, shapes_of(session))
    except Unfit as error:
        raise TrimtabError(f"version {number} of {name} does not fit the base network: {error}") from error
    return ServedAdapter(number, {file: AdapterFile(manifest.files[file], manifest.sizes[file]) for file in FILES})


def newest(store: Path, model: str) -> Path | None:
    """The folder of the newest version of a model that is a set."""
    folders = (store / model / str(number) for number in reversed(versions(store, model)))
    return next((folder for folder in folders if is_set(folder)), None)


def _session(file: Path) -> object:
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

"""Adapter sets: versions of a model that hold one base network and say which version of which adapter they serve.

A set is published, signed, checked, rolled out and rolled back like any other version; the adapters' own files stay versions of
their own, which a replica fetches when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from serving_stack.adapters_content import BASE, SET, AdapterFile, AdapterSet, ServedAdapter, is_set, read_set, shapes_of
from serving_stack.edge_model.adapters import FILES, Unfit, read
from serving_stack.export import TOKENIZER
from serving_stack.repository import Origin, models, publish_files, verify, versions
from serving_stack.repository_formats import CODE, EDGE_CODE
from serving_stack.repository_manifest import read_manifest
from serving_stack.repository_signing import Signer, Trust
from trimtab.errors import Missing, TrimtabError

SHARED_CODE = ("batches.py", "faults.py", "network.py", "texts.py")
"""What both backends have."""


def release(
    store: Path,
    model: str,
    version: int | None,
    adapters: Mapping[str, int | None],
    base: Path,
    *,
    remove: frozenset[str] = frozenset(),
    default: str | None = None,
    trust: Trust | None = None,
    origin: Origin,
    signer: Signer | None = None,
) -> Path:
    """Publish the next version of a set: that of the newest one, with these adapters (None: their newest version) put in or out.

    Each new adapter is verified, by signature where `trust` asks for one, and tried on the base network in the folder `base` (used
    only for the first version). Returns the version's folder. Raises `TrimtabError` when one is not whole or does not fit, and then nothing is published.
    """
    before = newest(store, model)
    if before is not None:
        base = before
    served, usual = {}, default
    if before is not None:
        old = read_set(before)
        served, usual = dict(old.adapters), default or old.default
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
    files |= {name: CODE / name for name in SHARED_CODE}
    files |= {code.name: code for code in sorted(EDGE_CODE.glob("*.py"))}
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


def adapters(store: Path) -> list[str]:
    """The models of a store whose newest version is an adapter that a set could name."""
    return [name for name in models(store) if all((store / name / str(versions(store, name)[-1]) / f).is_file() for f in FILES)]


def _session(file: Path) -> object:
    import onnxruntime

    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

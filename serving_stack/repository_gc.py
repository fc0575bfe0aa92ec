"""Taking versions away: one by one, or what nobody needs. What is served, or what another version is based on, stays."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from serving_stack.adapters_content import is_set, read_set
from serving_stack.repository import REMOVED, models, versions
from serving_stack.repository_files import folder_bytes, locked, put, sync_folder
from serving_stack.repository_manifest import read_manifest
from serving_stack.repository_use import Untold, in_use, taken
from trimtab.errors import Missing, TrimtabError

_LITTER = re.compile(r"\.(next|gone|\d+)-.+")


@dataclass(frozen=True)
class Entry:
    """A published version as gc sees it. `used`: served now; None where that cannot be told. `base`: what it is based on.

    `adapters`: what a set serves.
    """

    model: str
    version: int
    bytes: int
    used: bool | None
    base: str | None
    adapters: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`model/version`."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True)
class Verdict:
    """What becomes of a version, or of a half-made folder (version None), and why."""

    name: str
    version: int | None
    path: Path
    bytes: int
    why: str
    free: bool


def judge(store: Path, entries: Iterable[Entry], keep: int | None, needed: frozenset[str]) -> list[Verdict]:
    """Which versions go: all but the newest `keep` of each model (None: none goes).

    What is served, `needed` (names), or the base of a version that stays, stays.
    """
    entries = sorted(entries, key=lambda e: (e.model, -e.version))
    rank: dict[str, int] = {}
    kept: dict[str, str] = {}
    for entry in entries:
        rank[entry.model] = rank.get(entry.model, 0) + 1
        if entry.used:
            kept[entry.name] = "served now"
        elif entry.name in needed:
            kept[entry.name] = "said to be needed"
        elif entry.used is None:
            kept[entry.name] = "it cannot be told whether it is served"
        elif keep is None or rank[entry.model] <= keep:
            kept[entry.name] = "no number to keep was given" if keep is None else f"among the newest {keep}"
    kept |= {name: f"an adapter of {e.name}" for e in entries if e.name in kept for name in e.adapters if name not in kept}
    while grown := {e.base: f"the base of {e.name}" for e in entries if e.name in kept and e.base and e.base not in kept}:
        kept |= grown
    return [
        Verdict(e.name, e.version, store / e.model / str(e.version), e.bytes, kept.get(e.name, "old"), e.name not in kept)
        for e in entries
    ]


def entries(store: Path) -> list[Entry]:
    """All versions of a store. A broken one is an entry too, based on nothing that could be read."""
    folders = [(model, version, store / model / str(version)) for model in models(store) for version in versions(store, model)]
    return [Entry(model, version, folder_bytes(f), in_use(f), _base(f), _adapters(f)) for model, version, f in folders]


def collect(store: Path, keep: int | None, needed: frozenset[str] = frozenset(), *, dry_run: bool) -> list[Verdict]:
    """Free what nobody needs: half-made and half-removed folders of processes that died, and versions as `judge` says.

    With `dry_run` nothing is touched. Waits for whoever publishes at this moment.
    """
    verdicts = judge(store, entries(store), keep, needed)
    free = [v for v in verdicts if v.free]
    while not dry_run and free:  # a base goes after what is based on it
        said: dict[str, str] = {}
        for verdict in free:
            try:
                remove(store, verdict.path.parent.name, verdict.version or 0, by="gc")
            except TrimtabError as error:  # somebody began to serve it, or to build on it
                said[verdict.name] = str(error)
        if len(said) == len(free):
            verdicts = [replace(v, free=False, why=said[v.name]) if v.name in said else v for v in verdicts]
            break
        free = [v for v in free if v.name in said]
    return verdicts + _litter(store, dry_run)


def _litter(store: Path, dry_run: bool) -> list[Verdict]:
    found = []
    for shelf in sorted(f for f in store.iterdir() if f.is_dir()) if store.is_dir() else []:
        with locked(shelf, alone=True):  # nobody who still lives is making one
            for folder in sorted(f for f in shelf.iterdir() if _LITTER.fullmatch(f.name)):
                found.append(Verdict(f"{shelf.name}/{folder.name}", None, folder, folder_bytes(folder), "left half made", True))
                if not dry_run:
                    shutil.rmtree(folder)
    return found


def remove(store: Path, model: str, version: int, *, by: str | None = None, force: bool = False) -> int:
    """Take a version away, at once and whole; how many bytes that freed. Its number is not used again.

    Raises `Missing` when it is not there, `TrimtabError` when it is served, when that cannot be told, or when another version is
    based on it; `force` overrides the two last.
    """
    shelf, folder, name = store / model, store / model / str(version), f"version {version} of {model}"
    if not folder.is_dir():
        raise Missing(f"{name} is not in {store}: it has {versions(store, model) or 'none'}")
    with locked(shelf, alone=True), contextlib.ExitStack() as claim:
        above = [
            f"{m}/{v}" for m in models(store) for v in versions(store, m) if _base(store / m / str(v)) == f"{model}/{version}"
        ]
        if above and not force:
            raise TrimtabError(f"{name} is the base of {', '.join(above)}: remove that first")
        served = [
            f"{m}/{v}" for m in models(store) for v in versions(store, m) if f"{model}/{version}" in _adapters(store / m / str(v))
        ]
        if served and not force:
            raise TrimtabError(f"{name} is an adapter of {', '.join(served)}: remove that first")
        try:
            claim.enter_context(taken(folder))
        except Untold:
            if not force:
                raise
        size = folder_bytes(folder)
        _bury(shelf, folder, version, by)
        gone = Path(tempfile.mkdtemp(prefix=f".gone-{version}-", dir=shelf))
        folder.rename(gone / "version")
        sync_folder(shelf)
        shutil.rmtree(gone)
    return size


def _bury(shelf: Path, folder: Path, version: int, by: str | None) -> None:
    """Write what the version was, before it goes."""
    try:
        digest: str | None = read_manifest(folder).digest
    except TrimtabError:
        digest = None
    (shelf / REMOVED).mkdir(exist_ok=True)
    mark = shelf / REMOVED / f"{version}.json"
    mark.unlink(missing_ok=True)
    put(msgspec.json.encode({"version": version, "digest": digest, "removed_at": time.time(), "removed_by": by}), mark)
    sync_folder(mark.parent)


def _adapters(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(f"{name}/{each.version}" for name, each in read_set(folder).adapters.items()) if is_set(folder) else ()
    except TrimtabError:
        return ()


def _base(folder: Path) -> str | None:
    try:
        return read_manifest(folder).base
    except TrimtabError:
        return None

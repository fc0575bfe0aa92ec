"""What `trimtab models list|show|verify|remove|gc` find and print: rows for people, or JSON with the same facts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from serving_stack.repository import models, verify, versions
from serving_stack.repository_files import folder_bytes
from serving_stack.repository_gc import collect, remove
from serving_stack.repository_manifest import Manifest, read_manifest
from serving_stack.repository_shapes import check_contents
from serving_stack.repository_signing import Trust, read_signature, signature_of
from serving_stack.repository_use import in_use
from trimtab.errors import Missing, TrimtabError


def find(store: Path, reference: str) -> tuple[str, int]:
    """The version that `intent/2` names, or the content's address `sha256:...` (at least 6 digits). Raises `TrimtabError`."""
    model, _, number = reference.partition("/")
    if number.isascii() and number.isdigit():
        return model, int(number)
    digits = reference.removeprefix("sha256:")
    if len(digits) < 6 or set(digits) - set("0123456789abcdef"):
        raise TrimtabError(f"{reference!r} names no version: write model/number, or sha256: and at least 6 digits")
    found = [
        (m, v) for m in models(store) for v in versions(store, m) if _digest(store / m / str(v)).startswith(f"sha256:{digits}")
    ]
    if not found:
        raise Missing(f"no version in {store} has the content sha256:{digits}")
    if len({_digest(store / m / str(v)) for m, v in found}) > 1:
        raise TrimtabError(f"sha256:{digits} is the beginning of several: {', '.join(f'{m}/{v}' for m, v in found)}")
    return found[-1]


def list_versions(store: Path, model: str | None, as_json: bool) -> None:
    """Print the versions of one model, or of all."""
    rows = [
        about(store, m, v)
        for m in models(store)
        for v in versions(store, m)
        if model is None or m == model
    ]  # fmt: skip
    if as_json:
        _print_json(rows)
        return
    console = Console()
    if not rows:
        console.print(f"no version{f' of {model}' if model else ''} in {store}", soft_wrap=True)
        return
    broken = []
    table = Table("version", "content", "size", "made", "accuracy", "signed", "served")
    for row in rows:
        name = f"{row['model']}/{row['version']}"
        if "error" in row:
            table.add_row(name, "", "", "", "", "", "[red]broken")
            broken.append(f"{name}: {row['error']}")
            continue
        score = row["accuracy"]
        table.add_row(
            name,
            row["digest"][7:19],
            f"{row['bytes'] / 1e6:.1f} MB",
            _day(row["made_at"]),
            "?" if score is None else f"{score:.2%}",
            row["signed_by"] or "no",
            _yes(row["served"]),
        )
    console.print(table)
    for words in broken:
        console.print(_printable(words), markup=False, soft_wrap=True)


def about(store: Path, model: str, version: int) -> dict[str, Any]:
    """What is known of a version without reading its files; unknown is None. A broken one has `error`."""
    folder = store / model / str(version)
    try:
        manifest = read_manifest(folder)
        signature = signature_of(folder)
        return {
            "model": model,
            "version": version,
            "digest": manifest.digest,
            "bytes": folder_bytes(folder),
            "made_at": manifest.made_at,
            "made_by": manifest.made_by,
            "made_from": manifest.made_from,
            "base": manifest.base,
            "accuracy": _accuracy(manifest.card),
            "signed_by": read_signature(signature, f"{model}/{version}").key if signature else None,
            "served": in_use(folder),
        }
    except TrimtabError as error:
        return {"model": model, "version": version, "error": str(error)}


def show(store: Path, reference: str, as_json: bool) -> None:
    """Print the manifest of one version, its files and its result card."""
    model, version = find(store, reference)
    folder = store / model / str(version)
    if not folder.is_dir():
        raise Missing(f"version {version} of {model} is not in {store}: it has {versions(store, model) or 'none'}")
    manifest, row = read_manifest(folder), about(store, model, version)
    if as_json:
        _print_json(row | {"folder": str(folder), "manifest": msgspec.to_builtins(manifest)})
        return
    console = Console()
    for name, value in (
        ("version", f"{model}/{version}"),
        ("content", manifest.digest),
        ("folder", str(folder)),
        ("base", manifest.base or "unknown"),
        ("made from", manifest.made_from or "unknown"),
        ("made by", manifest.made_by or "unknown"),
        ("made at", _second(manifest.made_at)),
        ("signed by key", row.get("signed_by") or "nobody"),
        ("served now", _yes(row.get("served"))),
    ):
        console.print(f"{name:<14} {_printable(value)}", markup=False, highlight=False, soft_wrap=True)
    files = Table("file", "bytes", Column("SHA-256", overflow="fold"))
    for name, digest in manifest.files.items():
        files.add_row(name, f"{manifest.sizes[name]:,}" if name in manifest.sizes else "?", digest)
    console.print(files)
    if manifest.card is not None:
        console.print("result card")
        console.print_json(json.dumps(manifest.card))


def verify_versions(store: Path, references: list[str], trust: Trust | None, as_json: bool) -> None:
    """Check versions as a server does before it serves them; all of the store when none is named. Raises when one is refused."""
    chosen = [find(store, r) for r in references] or [(m, v) for m in models(store) for v in versions(store, m)]
    rows = [_verified(store, model, version, trust) for model, version in chosen]
    bad = [row for row in rows if row["refused"]]
    if as_json:
        _print_json(rows)
    else:
        table = Table("version", "", "signed by", "why")
        for row in rows:
            words = "[red]refused" if row["refused"] else "[green]whole"
            table.add_row(f"{row['model']}/{row['version']}", words, row["signed_by"] or "", escape(row["refused"] or ""))
        Console().print(table)
    if bad:
        named = ", ".join(f"{row['model']}/{row['version']}" for row in bad)
        raise TrimtabError(f"{len(bad)} of {len(rows)} would not be served: {named}")


def _verified(store: Path, model: str, version: int, trust: Trust | None) -> dict[str, Any]:
    row: dict[str, Any] = {"model": model, "version": version, "signed_by": None, "refused": None}
    try:
        row["signed_by"] = verify(store, model, version, trust)
        folder = store / model / str(version)
        check_contents(folder, sorted(read_manifest(folder).files))
    except TrimtabError as error:
        row["refused"] = str(error)
    return row


def remove_version(store: Path, reference: str, by: str, force: bool) -> None:
    """Take one version away and say so."""
    model, version = find(store, reference)
    freed = remove(store, model, version, by=by, force=force)
    Console().print(f"{model}/{version} is removed: {freed / 1e6:.1f} MB are free, and its number is not used again")


def gc(store: Path, keep: int | None, needed: frozenset[str], dry_run: bool, as_json: bool) -> None:
    """Free what nobody needs, or say what would be freed."""
    verdicts = collect(store, keep, needed, dry_run=dry_run)
    if as_json:
        _print_json([{"name": v.name, "version": v.version, "bytes": v.bytes, "free": v.free, "why": v.why} for v in verdicts])
        return
    table = Table("version", "size", "", "why")
    for v in verdicts:
        words = ("would go" if dry_run else "gone") if v.free else "stays"
        table.add_row(v.name, f"{v.bytes / 1e6:.1f} MB", words, escape(v.why))
    console = Console()
    console.print(table)
    total = sum(v.bytes for v in verdicts if v.free)
    console.print(f"{total / 1e6:.1f} MB {'would be free; nothing was touched' if dry_run else 'are free'}")


def _accuracy(card: dict[str, Any] | None) -> float | None:
    """The card's accuracy on data that it was not trained on; None when it says none."""
    for name in ("test_accuracy", "validation_accuracy", "accuracy"):
        value = (card or {}).get(name)
        if isinstance(value, int | float) and 0 <= value <= 1:
            return float(value)
    return None


def _digest(folder: Path) -> str:
    try:
        manifest: Manifest = read_manifest(folder)
    except TrimtabError:
        return ""
    return manifest.digest


def _day(when: float | None) -> str:
    return "?" if when is None else time.strftime("%Y-%m-%d", time.localtime(when))


def _second(when: float | None) -> str:
    return "unknown" if when is None else time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(when))


def _printable(words: str) -> str:
    """Without control characters: a manifest comes from somebody, a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in words)


def _yes(value: object) -> str:
    return "cannot be told" if value is None else "yes" if value else "no"


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=1))

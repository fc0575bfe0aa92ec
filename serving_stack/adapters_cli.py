"""`trimtab adapters`: add adapters to the repository, release sets of them, see what a set serves."""

# ruff: noqa: B008 (options are defaults: that is how typer reads them)

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

adapters = typer.Typer(
    help="Many tasks on one base network: adapters, and the sets in which they are served.",
    add_completion=False,
    no_args_is_help=True,
)


class _As(StrEnum):
    table = "table"
    json = "json"


_STORE = typer.Option(
    None,
    envvar="TRIMTAB_MODEL_STORE",
    help="The model repository. [default: store/ in TRIMTAB_CACHE or ~/.cache/trimtab]",
    show_default=False,
)
_MODEL = typer.Option("intent-edge", "--set", help="The model whose versions are the sets.")
_KEY = typer.Option(None, help="Sign with this Ed25519 private key (PEM, mode 600).", show_default=False)
_OUTPUT = typer.Option(_As.table, "--output", "-o", help="table for people, json for programs.")


def _place(store: Path | None) -> Path:
    from trimtab.cache import cache_folder

    return store or cache_folder() / "store"


@adapters.command("add")
def _add(
    name: str = typer.Argument(..., help="What requests will call it, such as banking."),
    folder: Path = typer.Argument(None, help="An adapter that `trimtab tune` made. [default: --shipped]", show_default=False),
    shipped: int = typer.Option(None, min=1, help="Instead of a folder: an adapter that Trimtab ships.", show_default=False),
    intents: Path = typer.Option(
        None,
        help="The task's labels: a JSON list of names, in the order of the head. [default: as in the folder]",
        show_default=False,
    ),
    store: Path = _STORE,
    sign_key: Path = _KEY,
) -> None:
    """Publish a LoRA adapter as the next version of its name: its matrices, its head and its labels, without the base.

    It is tried on the base network first; one of another shape, or that does more than LoRA, is refused with the reason.

    Example: trimtab adapters add banking runs/tune/adapters/2
    """
    from rich.console import Console

    from serving_stack.adapters_set import add, shipped_folder
    from serving_stack.models_add import known_origin
    from serving_stack.repository import UNKNOWN
    from serving_stack.repository_signing import signer
    from trimtab.errors import TrimtabError

    if (folder is None) == (shipped is None):
        raise TrimtabError("say what to add: a folder, or --shipped NUMBER")
    source = folder if folder is not None else shipped_folder(shipped)
    console = Console()
    made = add(
        _place(store),
        name,
        source,
        intents,
        origin=known_origin(UNKNOWN, source),
        signer=signer(sign_key) if sign_key else None,
        tell=console.print,
    )
    console.print(f"adapter {name}/{made.name} is in {made}", soft_wrap=True)


@adapters.command("release")
def _release(
    names: list[str] = typer.Argument(
        None, metavar="ADAPTER[/VERSION]...", help="Put in, or change to this version (or the newest)."
    ),
    model: str = _MODEL,
    remove: list[str] = typer.Option([], "--remove", help="Take this adapter out of the set. May be repeated."),
    default: str = typer.Option(None, help="Answers requests that name no adapter. [default: as before]", show_default=False),
    version: int = typer.Option(None, min=1, help="The set's number. [default: the next one]", show_default=False),
    store: Path = _STORE,
    trusted_keys: Path = typer.Option(
        None, help="Folder of public keys (*.pem): adapters must be signed by one. [default: the settings]", show_default=False
    ),
    sign_key: Path = _KEY,
) -> None:
    """Publish the next version of a set: that of the newest one, with the named adapters changed.

    The version is released like any other, so by canary, promotion and rollback: `trimtab release FLEET --version N`.

    Example: trimtab adapters release banking/2 travel --default banking
    """
    from rich.console import Console

    from serving_stack.adapters_base import ensure_base
    from serving_stack.adapters_set import newest, parse, release
    from serving_stack.models_add import whoever
    from serving_stack.models_settings import ModelsSettings
    from serving_stack.repository import Origin
    from serving_stack.repository_signing import signer, trust
    from trimtab.settings import load

    console, place, settings = Console(), _place(store), load(ModelsSettings)
    required = settings.require_signature or trusted_keys is not None
    folder = release(
        place,
        model,
        version,
        dict(map(parse, names or [])),
        None if newest(place, model) else ensure_base(tell=console.print),
        remove=frozenset(remove),
        default=default,
        trust=trust(trusted_keys or settings.trusted_keys, required),
        origin=Origin(made_by=whoever()),
        signer=signer(sign_key) if sign_key else None,
    )
    console.print(f"{model}/{folder.name} is in {folder}", soft_wrap=True)


@adapters.command("list")
def _list(
    version: int = typer.Argument(None, min=1, help="Which version of the set. [default: the newest]", show_default=False),
    model: str = _MODEL,
    store: Path = _STORE,
    output: _As = _OUTPUT,
) -> None:
    """List what a set serves: adapters, their versions, and the bytes that each moves.

    Example: trimtab adapters list -o json
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from serving_stack.adapters_content import read_set
    from serving_stack.adapters_set import newest
    from trimtab.errors import Missing

    place = _place(store)
    folder = place / model / str(version) if version else newest(place, model)
    if folder is None:
        raise Missing(f"{model} has no version in {place}: make one with trimtab adapters release")
    found = read_set(folder)
    rows = [
        {"adapter": name, "version": each.version, "bytes": each.bytes, "default": name == found.default}
        for name, each in found.adapters.items()
    ]
    if output == _As.json:
        print(json.dumps({"set": f"{model}/{folder.name}", "adapters": rows}, indent=1))
        return
    table = Table("adapter", "version", "bytes to move", "", title=f"{model}/{folder.name}")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("adapter", "version", "bytes")), "default" if row["default"] else "")
    Console().print(table)

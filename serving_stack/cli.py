"""The command `trimtab models`; the entry points of all commands of this part."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

from serving_stack.gateway_sync_cli import gateway_sync as gateway_sync
from serving_stack.traffic_cli import traffic as traffic
from serving_stack.tune_commands import compress as compress
from serving_stack.tune_commands import tune as tune

models = typer.Typer(
    help="The model repository: publish, check, list and remove versions; export and measure them.",
    add_completion=False,
    no_args_is_help=True,
)

_CACHE = typer.Option(
    None, help="Where exported models are kept. [default: TRIMTAB_CACHE or ~/.cache/trimtab, in models/]", show_default=False
)


@models.command("export")
def _export(
    adapter: int = typer.Option(None, min=1, help="Which shipped adapter. [default: all]", show_default=False),
    cache: Path = _CACHE,
) -> None:
    """Merge an adapter into MiniLM and write ONNX files (float32 and int8), unless they are there already.

    The demo does this by itself on first use; it takes about half a minute per adapter.

    Example: trimtab models export --adapter 2
    """
    from serving_stack.models_cli import export

    export(adapter, cache)


@models.command("accuracy")
def _accuracy(
    adapter: int = typer.Option(None, min=1, help="Which shipped adapter. [default: all]", show_default=False),
    folder: Path = typer.Option(None, help="An adapter that `trimtab tune` made, instead of a shipped one.", show_default=False),
    cache: Path = _CACHE,
    json_file: Path = typer.Option(None, "--json", help="Also write the rows to this file.", show_default=False),
) -> None:
    """Measure how many of BANKING77's 3,080 test questions are answered rightly, in float32 and in int8 as served.

    Example: trimtab models accuracy --adapter 2
    """
    from serving_stack.models_cli import accuracy

    accuracy(adapter, folder, cache, json_file)


class _As(StrEnum):
    table = "table"
    json = "json"


_STORE = typer.Option(
    None,
    envvar="TRIMTAB_MODEL_STORE",
    help="The model repository. [default: store/ in TRIMTAB_CACHE or ~/.cache/trimtab]",
    show_default=False,
)
_OUTPUT = typer.Option(_As.table, "--output", "-o", help="table for people, json for programs.")
_WHICH = "model/number, such as intent/2, or the content's address, such as sha256:4f1c9a."


def _store(given: Path | None) -> Path:
    from trimtab.cache import cache_folder

    return given or cache_folder() / "store"


@models.command("list")
def _list(
    model: str = typer.Argument(None, help="Only this model. [default: all]", show_default=False),
    store: Path = _STORE,
    shipped: bool = typer.Option(False, "--shipped", help="The adapters that Trimtab ships, instead."),
    output: _As = _OUTPUT,
) -> None:
    """List the versions in the repository: content, size, who made it, on which base, accuracy, signature, whether it is served.

    Example: trimtab models list intent -o json
    """
    from serving_stack.models_cli import list_shipped
    from serving_stack.models_store import list_versions

    if shipped:
        list_shipped()
    else:
        list_versions(_store(store), model, output == _As.json)


@models.command("add")
def _add(
    source: Path = typer.Argument(
        None,
        help="An exported model, an adapter that `trimtab tune` made, or a published version. [default: --adapter]",
        show_default=False,
    ),
    adapter: int = typer.Option(None, min=1, help="Instead of a folder: a shipped adapter.", show_default=False),
    model: str = typer.Option("intent", help="The model that it becomes a version of."),
    version: int = typer.Option(None, min=1, help="Its number. [default: the next one]", show_default=False),
    store: Path = _STORE,
    as_is: bool = typer.Option(False, "--as-is", help="Publish the folder's files as they are, such as an adapter for the edge."),
    sign_key: Path = typer.Option(None, help="Sign with this Ed25519 private key (PEM, mode 600).", show_default=False),
    base: str = typer.Option(
        None, help="The base model; model/number names one of the repository. [default: as the card says]", show_default=False
    ),
    card: Path = typer.Option(None, help="The result card (JSON). [default: card.json in the folder]", show_default=False),
    made_by: str = typer.Option(None, help="Who made it. [default: user@host]", show_default=False),
    cache: Path = _CACHE,
) -> None:
    """Check a model and publish it as an immutable version, whole or not at all.

    Safetensors, ONNX, JSON, text and the backend's own Python are accepted, by content; nothing that could run code when it is
    read. The network is loaded and asked once. The same content again is the same version.

    Example: trimtab models add --adapter 2 --sign-key release.pem

    Example: trimtab models add runs/tune/adapters/2 --version 3
    """
    from rich.console import Console

    from serving_stack.models_add import add, add_shipped, read_card
    from serving_stack.repository import Origin
    from serving_stack.repository_signing import signer
    from trimtab.errors import Missing, TrimtabError

    if (source is None) == (adapter is None):
        raise TrimtabError("say what to add: a folder, or --adapter NUMBER")
    if card is not None and not card.is_file():
        raise Missing(f"{card} is no result card: it is not there")
    console = Console()
    origin = Origin(base=base, card=read_card(card) if card else None, made_by=made_by)
    key = signer(sign_key) if sign_key else None
    if source is None:
        folder = add_shipped(_store(store), model, version, adapter, origin=origin, signer=key, cache=cache, tell=console.print)
    else:
        folder = add(
            _store(store), model, version, source, as_is=as_is, origin=origin, signer=key, cache=cache, tell=console.print
        )
    console.print(f"{model}/{folder.name} is in {folder}", soft_wrap=True)


@models.command("show")
def _show(
    reference: str = typer.Argument(..., help=_WHICH, metavar="VERSION"), store: Path = _STORE, output: _As = _OUTPUT
) -> None:
    """Show one version: its files with their SHA-256, who made it from what and when, its result card.

    Example: trimtab models show intent/2
    """
    from serving_stack.models_store import show

    show(_store(store), reference, output == _As.json)


@models.command("verify")
def _verify(
    references: list[str] = typer.Argument(None, help=_WHICH + " [default: all]", metavar="[VERSION]...", show_default=False),
    store: Path = _STORE,
    trusted_keys: Path = typer.Option(
        None,
        help="Folder of public keys (*.pem) that are believed. [default: the setting models.trusted_keys]",
        show_default=False,
    ),
    require_signature: bool = typer.Option(
        None, "--require-signature/--no-signature", help="Whether unsigned is refused. [default: the setting]", show_default=False
    ),
    output: _As = _OUTPUT,
) -> None:
    """Check versions as a server does before it serves them: signature, every file's SHA-256, formats, shape.

    Ends with 2 and says why when one would be refused.

    Example: trimtab models verify intent/2 --trusted-keys keys/ --require-signature
    """
    from serving_stack.models_settings import ModelsSettings
    from serving_stack.models_store import verify_versions
    from serving_stack.repository_signing import trust
    from trimtab.settings import load

    settings = load(ModelsSettings)
    required = settings.require_signature if require_signature is None else require_signature
    believed = trust(trusted_keys or settings.trusted_keys, required)
    verify_versions(_store(store), references or [], believed, output == _As.json)


@models.command("remove")
def _remove(
    reference: str = typer.Argument(..., help=_WHICH, metavar="VERSION"),
    store: Path = _STORE,
    force: bool = typer.Option(
        False, "--force", help="Also when another version is based on it, or it cannot be told who serves it."
    ),
) -> None:
    """Take a version away. One that is served here is refused; the number of a removed one is never used again.

    Example: trimtab models remove intent/1
    """
    from serving_stack.models_add import whoever
    from serving_stack.models_store import remove_version

    remove_version(_store(store), reference, whoever(), force)


@models.command("gc")
def _gc(
    keep: int = typer.Option(
        None,
        min=1,
        help="How many of the newest versions of each model stay. [default: all: only litter goes]",
        show_default=False,
    ),
    needed: list[str] = typer.Option(
        [], "--needed", help="A version that stays, such as intent/2, because another machine serves it. May be repeated."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would go."),
    store: Path = _STORE,
    output: _As = _OUTPUT,
) -> None:
    """Free what nobody needs: what killed processes left half made, and, with --keep, old versions.

    What a process of this machine serves stays, and so does what a version that stays is based on.

    Example: trimtab models gc --keep 3 --dry-run
    """
    from serving_stack.models_store import find, gc

    place = _store(store)
    stays = frozenset("{}/{}".format(*find(place, reference)) for reference in needed)
    gc(place, keep, stays, dry_run, output == _As.json)

"""The `trimtab` command. Parts add their commands through entry points, so the kernel knows none of them.

Only the module of the command that is called is imported; `trimtab --help` imports them all, which is why a part's
``cli.py`` imports nothing heavy at its top.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from trimtab.errors import TrimtabError

GROUP = "trimtab.commands"
PLAIN = None
"""Help in plain text: boxes around it would cost as much time as everything else together."""


class _Commands(TyperGroup):
    """Finds a command among the entry points when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(_found())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        point = _found().get(cmd_name)
        if point is None:
            return None
        part = point.load()
        part.rich_markup_mode = PLAIN
        command = typer.main.get_command(part)
        command.name = cmd_name
        command.short_help = (command.help or "").split("\n\n")[0]  # else it is cut off
        return command


def _found() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


app = typer.Typer(
    cls=_Commands,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    rich_markup_mode=PLAIN,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"trimtab {version('trimtab')}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
) -> None:
    """Keeps model-serving fleets on course: tells demand from fault, then scales, rolls back or quarantines.

    Start with `trimtab demo`, which runs everything on this machine and shows what Trimtab does by itself.
    """


def main() -> None:
    """Runs the command; an error that a person can understand is printed as such and exits with 2."""
    try:
        app()
    except TrimtabError as error:
        typer.echo(f"trimtab: {error}", err=True)
        sys.exit(2)

"""`kubectl trimtab ...` and `trimtab fleet ...`."""

from __future__ import annotations

import sys

import typer

from autoscaler.kubectl import ask, look

fleet = typer.Typer(
    name="kubectl trimtab",
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Look at fleets of model servers on Kubernetes, and ask things of them.\n\n"
    "The same commands are `kubectl trimtab ...` and `trimtab fleet ...`. They read and patch ModelFleets; the operator acts.",
)
for command in (
    look.status,
    look.history,
    look.why,
    ask.pause,
    ask.resume,
    ask.release,
    ask.override,
    ask.rollback,
    ask.promote,
    ask.quarantine,
):
    fleet.command()(command)


def main() -> None:
    """`kubectl-trimtab`: an error that a person can understand is printed as such and exits with 2."""
    from trimtab.errors import TrimtabError

    try:
        fleet()
    except TrimtabError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)

"""The command `trimtab incident`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from trimtab.bus import Bus

incident = typer.Typer(add_completion=False)


@incident.command()
def _incident(
    which: str = typer.Argument(
        "latest", help="An incident's id (its beginning is enough), a finding's or decision's, `latest` or `list`."
    ),
    out: Path = typer.Option(None, help="Also write the page to this HTML file; it needs nothing else.", show_default=False),
    run: Path = typer.Option(None, help="Folder of a finished run, or its records.jsonl, instead of Kafka.", show_default=False),
    bootstrap: str = typer.Option(
        None, "--kafka", help="Kafka's address, host:port. [default: kafka.bootstrap]", show_default=False
    ),
    fleet: str = typer.Option(None, help="Only this fleet's incidents. [default: all]", show_default=False),
    config: Path = typer.Option(
        None, help="YAML settings, sections `incident` and `kafka`. [default: trimtab.yaml]", show_default=False
    ),
) -> None:
    """Shows the chain from scrape to outcome on one time axis, the evidence, and what the policy refused and why.

    `latest` is the newest incident that somebody should know of (warning or worse), or else the newest.

    Example: trimtab incident latest --run runs/tour-20261124-104841 --out incident.html
    """
    from rich.console import Console

    from dashboards.incident import page, sources, story, terminal
    from dashboards.notify.settings import IncidentSettings
    from trimtab import settings

    chosen = settings.load(IncidentSettings, config)
    source: sources.Source = sources.Run(run) if run else sources.Topics(_bus(bootstrap, config))
    archive = story.archive(source.said(), chosen, fleet)
    console = Console(highlight=False)
    if which == "list":
        terminal.show_list(archive, console)
        return
    updates = story.find(archive, which)
    archive.messages += [record.message for record in source.around(*story.window(updates))]
    told = story.tell(archive, updates, chosen.grafana_url)
    terminal.show(told, console)
    if out:
        page.write(told, out)
        console.print(f"page written to {out}", markup=False)


def _bus(bootstrap: str | None, config: Path | None) -> Bus:
    from trimtab import settings
    from trimtab.bus import BusSettings, connect

    chosen = settings.load(BusSettings, config)
    return connect(chosen.model_copy(update={"bootstrap": bootstrap}) if bootstrap else chosen)

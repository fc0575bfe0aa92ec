"""The command `trimtab traffic`: real inference requests at the arrival times of a plan, each answer checked."""

from __future__ import annotations

import typer

traffic = typer.Typer(
    help="Send real inference traffic to a fleet, open loop, and check each answer.", invoke_without_command=True
)

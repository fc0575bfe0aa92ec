"""The Envoy container: waits for the first files of `trimtab gateway-sync`, then becomes Envoy."""

from __future__ import annotations

import os
import time
from pathlib import Path

from serving_stack.gateway import gateway_process
from serving_stack.gateway.render import BOOTSTRAP
from serving_stack.gateway.render_listener import ROUTES

DRAIN_SECONDS = 15
"""How long an Envoy that leaves goes on telling clients to close their connections."""


def start(folder: Path) -> None:
    """Replace this process by Envoy on the files in `folder`; waits for as long as they are not all there."""
    waited = 0.0
    while not all((folder / name).is_file() for name in (BOOTSTRAP, ROUTES)):  # the route is written last
        if waited % 10 == 0:
            print(f"waiting for the gateway's files in {folder}", flush=True)
        time.sleep(0.1)
        waited = round(waited + 0.1, 1)
    process = gateway_process(folder)
    argv = [*process.argv, "--drain-time-s", str(DRAIN_SECONDS), "--drain-strategy", "immediate"]
    os.execve(argv[0], argv, {**os.environ, **process.env})  # noqa: S606

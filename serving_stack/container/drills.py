"""Game days: what makes one replica hang or gives it a fault. Run with `kubectl exec POD -- trimtab-container ...`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from pydantic import ValidationError

from serving_stack.container.triton import FAULT_FILE
from serving_stack.fault import Fault, set_fault
from trimtab.errors import Missing, SettingsError


def hang(stopped: bool) -> None:
    """Stop Triton (SIGSTOP: it holds its connections and answers nothing), or let it go on. Raises `Missing`."""
    found = processes("tritonserver")
    if not found:
        raise Missing("no Triton runs in this container")
    for number in found:
        os.kill(number, signal.SIGSTOP if stopped else signal.SIGCONT)


def processes(name: str) -> list[int]:
    """The processes of this container with that name, in no order."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() == name[:15]:
                found.append(int(folder.name))
        except OSError:  # ended meanwhile
            continue
    return found


def replica_fault(text: str) -> None:
    """Give this replica the fault that `text` says as JSON, or none with `none`. Raises `SettingsError`."""
    try:
        set_fault(FAULT_FILE, None if text == "none" else Fault.model_validate_json(text))
    except ValidationError as error:
        raise SettingsError(f"not a fault: {error.errors()[0]['msg']}") from error

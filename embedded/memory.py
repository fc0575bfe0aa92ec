"""Whether this machine has the memory that a stack needs, asked before anything is started."""

from __future__ import annotations

import psutil
from pydantic import Field

from trimtab import settings
from trimtab.errors import Missing


class EmbeddedSettings(settings.Section, name="embedded"):
    """The stack on one machine."""

    memory_needed_bytes: int = Field(
        4_000_000_000,
        ge=0,
        description="Free memory, in bytes, below which nothing is started. 4 GB: Kafka, Flink, training and four replicas at "
        "their peak with some room; running out half way would look like a fault of the fleet.",
    )


def check_memory(needed: int | None = None) -> None:
    """Raises `Missing` when less than `needed` bytes (default: the setting) are available."""
    least = settings.load(EmbeddedSettings).memory_needed_bytes if needed is None else needed
    available = psutil.virtual_memory().available
    if available < least:
        raise Missing(
            f"{available / 1e9:.1f} GB of memory are free and the stack needs {least / 1e9:.1f} GB: close other programs, or "
            "lower embedded.memory_needed_bytes (TRIMTAB_EMBEDDED_MEMORY_NEEDED_BYTES) for a smaller fleet."
        )

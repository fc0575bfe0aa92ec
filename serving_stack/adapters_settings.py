"""How replicas of adapter sets hold adapters: the settings section `adapters`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from trimtab.settings import Section


class AdaptersSettings(Section, name="adapters"):
    """Where a replica gets adapters from, and how many it holds."""

    memory_mib: int = Field(
        256,
        ge=1,
        le=1_000_000,
        description="Memory for adapters in one replica, in MiB, beside the base network. An adapter of rank 16 on MiniLM takes "
        "2.7 MiB; those that are asked for most stay.",
    )
    source: str | None = Field(
        None,
        description="Where adapters are fetched from: a folder, or an http(s) address, with <adapter>/<version>/<file> below it. "
        "Default: the model repository that the set lies in.",
    )
    popularity_file: Path | None = Field(
        None,
        description="Where replicas note which adapters are popular, so that a new one begins with those. "
        "Default: adapters/<model>.json in TRIMTAB_CACHE or ~/.cache/trimtab.",
    )

"""The settings of the model repository: whom a server believes."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from trimtab.settings import Section


class ModelsSettings(Section, name="models"):
    """The model repository: whose signatures are believed before a version is served."""

    trusted_keys: Path | None = Field(
        None,
        description="Folder of Ed25519 public keys (*.pem). A signed version is served only when one of them signed it. "
        "Without it no signature is looked at.",
    )
    require_signature: bool = Field(
        False, description="Refuse a version without a signature. Off, because the versions that Trimtab makes itself have none."
    )

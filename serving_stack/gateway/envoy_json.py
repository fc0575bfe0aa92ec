"""Words of Envoy's configuration that several files need."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

Json = dict[str, Any]

TYPE = "type.googleapis.com/envoy."


def resources(what: list[Json]) -> Json:
    """A discovery file. Its version is a hash of its content: the same content is the same file."""
    digest = hashlib.sha256(msgspec.json.encode(what, order="deterministic")).hexdigest()
    return {"version_info": digest[:16], "resources": what}


def watched(folder: Path, name: str) -> Json:
    """Read `name` in `folder`, and again whenever something is renamed in its directory."""
    path = folder / name
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
    }


def seconds(value: float) -> str:
    """A duration."""
    return f"{value:.3f}s"


def address(host: str, port: int) -> Json:
    """A TCP address."""
    return {"socket_address": {"address": host, "port_value": port}}

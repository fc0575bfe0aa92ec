"""Words of Envoy's configuration that several files need."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]

TYPE = "type.googleapis.com/envoy."


def resources(what: list[Json]) -> Json:
    """A discovery file. Its version is a hash of its content: the same content is the same file."""
    text = json.dumps(what, sort_keys=True)
    return {"version_info": hashlib.sha256(text.encode()).hexdigest()[:12], "resources": what}


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

"""Puts rendered files where Envoy watches: atomically, only those that changed, in an order that never routes into nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from serving_stack.gateway.render import BOOTSTRAP
from serving_stack.gateway.render_clusters import with_chains
from serving_stack.gateway.render_listener import CLUSTERS, ROUTES
from serving_stack.gateway.render_routes import named_clusters
from trimtab.errors import Unavailable


def write(folder: Path, files: dict[str, dict[str, Any]]) -> list[str]:
    """Writes what differs from what is in `folder` and returns the names written. Envoy follows within milliseconds.

    The order is endpoints, clusters, route, so that a route never names a cluster that is not there yet. For the same
    reason a version that leaves keeps its clusters until the next call, when no route names it any more. The bootstrap is
    written only once: Envoy does not read it again. Raises Unavailable when the folder cannot be written.
    """
    try:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        files = files | {CLUSTERS: _with_leaving(folder, files)}
        order = sorted(files, key=lambda name: (name == ROUTES, name == CLUSTERS, name))
        return [name for name in order if _replace(folder, name, files[name])]
    except OSError as error:
        raise Unavailable(f"cannot write the gateway's files in {folder}: {error.strerror or error}") from error


def _replace(folder: Path, name: str, content: dict[str, Any]) -> bool:
    path = folder / name
    text = msgspec.json.encode(content, order="deterministic")
    if path.exists() and (name == BOOTSTRAP or path.read_bytes() == text):
        return False
    # The temporary file lies outside the watched folders: only the finished file makes an event there.
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    temporary.touch(0o600 if b'"credentials"' in text else 0o666)  # routes hold the tokens that are accepted
    temporary.write_bytes(text)
    temporary.replace(path)
    return True


def _with_leaving(folder: Path, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The new clusters and, from the file now in place, those that the route now in place still names."""
    wanted = files[CLUSTERS]
    try:
        route = json.loads((folder / ROUTES).read_text())
        present = {cluster["name"]: cluster for cluster in json.loads((folder / CLUSTERS).read_text())["resources"]}
        named = with_chains(named_clusters(route), present)
    except (FileNotFoundError, ValueError, KeyError):
        return wanted
    names = {cluster["name"] for cluster in wanted["resources"]}
    leaving = [cluster for name, cluster in present.items() if name in named - names]
    if not leaving:
        return wanted
    return {"version_info": wanted["version_info"] + "+", "resources": wanted["resources"] + leaving}

"""Files written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trimtab.errors import Missing

PROVIDER = """# Written by `trimtab dashboards write`. Grafana reads it from its folder provisioning/dashboards.
apiVersion: 1
providers:
  - name: trimtab
    folder: Trimtab
    folderUid: trimtab
    type: file
    disableDeletion: false
    allowUiUpdates: false
    options:
      path: {path}
"""


def dashboard_files(where: str) -> dict[str, str]:
    """File name -> content: every dashboard, and the provider that makes Grafana load them from the folder `where`."""
    from dashboards.build import dashboards, text

    made = {f"{uid}.json": text(dashboard) for uid, dashboard in dashboards().items()}
    return made | {"provider.yaml": PROVIDER.format(path=where)}


def write(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Writes each file in one step; returns those whose content changed. Raises `Missing` when the folder cannot be written."""
    changed: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = folder / name
            if path.exists() and path.read_text() == content:
                continue
            half = path.with_name(f".{name}.half")
            half.write_text(content)
            half.replace(path)
            changed.append(path)
    except OSError as error:
        raise Missing(f"{folder} cannot be written: {error.strerror}") from error
    return changed

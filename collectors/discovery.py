"""Which targets to scrape: a Prometheus ``file_sd`` file (JSON or YAML), read again whenever it changes.

    [{"targets": ["127.0.0.1:8002"], "labels": {"fleet": "intent", "role": "triton", "target": "intent-v1-1",
      "pool": "stable", "version": "1", "__metrics_path__": "/metrics", "__scheme__": "http"}}]

`fleet` and `role` are required; `target` defaults to the address. Labels that Trimtab does not know are ignored, as other readers
of the file may need them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import httpx
from prometheus_client import Gauge
from pydantic import BaseModel, BeforeValidator, Field, RootModel, field_validator

from collectors.watched import Watched
from trimtab import yamlfile
from trimtab.errors import SettingsError
from trimtab.messages import PoolRole, Role

log = logging.getLogger(__name__)

TARGETS = Gauge("trimtab_collect_targets", "Targets that are scraped now.")
FILE_BAD = Gauge(
    "trimtab_collect_targets_file_bad", "1 while the targets file is missing or wrong and its last good content is used."
)


@dataclass(frozen=True)
class Target:
    """One page to scrape and the labels its snapshots carry."""

    target: str
    url: str
    fleet: str
    role: Role
    pool: PoolRole | None = None
    version: int | None = None


class Source(Protocol):
    """Where targets come from. What went wrong is logged and counted there; the targets are then the last good ones."""

    @property
    def targets(self) -> list[Target]:
        """What to scrape now."""

    def refresh(self) -> bool:
        """Looks for news, without waiting; true when the targets are others than before."""

    def close(self) -> None:
        """Lets go of what looks for news."""


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=256)]


class _Labels(BaseModel):
    fleet: Text
    role: Role
    target: Text | None = None
    pool: PoolRole | None = None
    version: int | None = Field(None, ge=0)
    metrics_path: str = Field("/metrics", alias="__metrics_path__", pattern="^/")
    scheme: Literal["http", "https"] = Field("http", alias="__scheme__")


class _Group(BaseModel):
    targets: list[Annotated[str, Field(pattern=r"^[^\s/@?#]+:\d{1,5}$")]]
    labels: _Labels

    @field_validator("targets")
    @classmethod
    def _addresses(cls, targets: list[str]) -> list[str]:
        for address in targets:
            try:
                port = httpx.URL(f"http://{address}/").port
            except httpx.InvalidURL as error:
                raise ValueError(f"'{address}' is no host:port") from error
            if port is not None and not 0 < port < 65536:  # None: the default port, 80
                raise ValueError(f"'{address}' has no valid port")
        return targets


class _File(RootModel[list[_Group]]):
    pass


def read(path: Path) -> list[Target]:
    """The targets in a file, in its order; `SettingsError` names file and line of every mistake."""
    document = yamlfile.read(path)
    if not isinstance(document.data, list):
        raise SettingsError(f"{path}:1: must be a list of groups with 'targets' and 'labels'")
    targets: dict[str, Target] = {}
    for index, group in enumerate(yamlfile.validate(document, _File).root):
        labels = group.labels
        for address in group.targets:
            name = labels.target or address
            if name in targets:
                raise SettingsError(f"{path}:{document.line((index,))}: target '{name}' is given twice")
            url = f"{labels.scheme}://{address}{labels.metrics_path}"
            targets[name] = Target(name, url, labels.fleet, labels.role, labels.pool, labels.version)
    return list(targets.values())


class Discovery:
    """The targets of a file that may change at any time. A missing or wrong file keeps the last good targets and says so."""

    def __init__(self, path: Path) -> None:
        """Raises `SettingsError` when the file is there and wrong; one that is not there yet is waited for."""
        self._file: Watched[list[Target]] = Watched(path, read, [])
        self._say()

    @property
    def targets(self) -> list[Target]:
        """What to scrape now."""
        return self._file.content

    @property
    def problem(self) -> str | None:
        """Why the file as it is now is not used, in words; None while it is."""
        return self._file.problem

    def refresh(self) -> bool:
        """Looks at the file; true when the targets are others than before."""
        changed = self._file.refresh()
        if changed:
            log.info("scraping %d targets", len(self.targets))
        self._say()
        return changed

    def close(self) -> None:
        """A file needs no care."""

    def _say(self) -> None:
        TARGETS.set(len(self.targets))
        FILE_BAD.set(self.problem is not None)

"""Grafana over its HTTP API: what is there, and making it so. Every failure becomes one clear sentence here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import niquests.exceptions
from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError

from dashboards.boards.kind import PREFIX
from dashboards.build import TAG, Json
from dashboards.plan import Change, There, message_of, ours
from trimtab.errors import Missing, SettingsError, Unavailable

OLDEST = (10, 0)
"""The SDK that builds the dashboards speaks the schema of Grafana 10."""
FOLDER, FOLDER_TITLE = "trimtab", "Trimtab"
SOURCE_UID, SOURCE_NAME = f"{PREFIX}prometheus", "Trimtab Prometheus"
_TIMEOUT = 10.0
_NOT_FOUND = 404


def read_token(file: Path) -> str:
    """The token in a file; it is never part of a message."""
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Missing(f"the token file {file} cannot be read: {getattr(error, 'strerror', 'it is no text')}") from error
    if not token or not token.isprintable() or " " in token:
        raise SettingsError(f"{file} does not hold one token and nothing else")
    return token


@dataclass(frozen=True)
class Grafana:
    """One Grafana. Raises `Unavailable` when it does not answer, `SettingsError` when it refuses."""

    url: str
    api: Any  # a GrafanaApi; its methods have no types

    @classmethod
    def at(cls, url: str, token: str) -> Grafana:
        """The Grafana at ``http[s]://host[:port][/path]``; checks that it answers, takes the token and is new enough."""
        if not url.startswith(("http://", "https://")):
            raise SettingsError(f"'{url}' is no address of a Grafana: it begins with http:// or https://")
        grafana = cls(url.rstrip("/"), GrafanaApi.from_url(url.rstrip("/") + "/", credential=token, timeout=_TIMEOUT))
        grafana._check_version()
        return grafana

    def dashboards(self) -> dict[str, There]:
        """uid -> what is there of ours, found by tag and by the beginning of the uid."""
        with self._words("list the dashboards"):
            found = self.api.search.search_dashboards(tag=TAG, type_="dash-db", limit=5000)
            return {each["uid"]: self._there(each["uid"]) for each in found if ours(each["uid"])}

    def dashboard(self, uid: str) -> There | None:
        """One dashboard, whatever its tags; None when there is none."""
        with self._words(f"read the dashboard {uid}"):
            try:
                return self._there(uid)
            except GrafanaClientError as error:
                if error.status_code == _NOT_FOUND:
                    return None
                raise

    def source(self) -> Json | None:
        """Our data source; None when there is none."""
        with self._words("read the data source (that needs a token with the role Admin)"):
            try:
                found: Json = self.api.datasource.get_datasource_by_uid(SOURCE_UID)
            except GrafanaClientError as error:
                if error.status_code == _NOT_FOUND:
                    return None
                raise
            return found

    def put_source(self, prometheus: str, existing: Json | None) -> None:
        """Makes or changes our data source."""
        wanted = source(prometheus)
        with self._words("write the data source (that needs a token with the role Admin)"):
            if existing is None:
                self.api.datasource.create_datasource(wanted)
            else:
                self.api.datasource.update_datasource_by_uid(SOURCE_UID, {**wanted, "version": existing.get("version")})

    def ensure_folder(self) -> None:
        """The folder of our dashboards."""
        with self._words("make the folder (that needs a token with the role Editor)"):
            try:
                self.api.folder.get_folder(FOLDER)
            except GrafanaClientError as error:
                if error.status_code != _NOT_FOUND:
                    raise
                self.api.folder.create_folder(FOLDER_TITLE, uid=FOLDER)

    def apply(self, change: Change, dashboard: Json | None) -> None:
        """Makes one change; `dashboard` is the wanted content of what is created or updated."""
        if change.kind == "remove":
            with self._words(f"remove the dashboard {change.uid}"):
                self.api.dashboard.delete_dashboard(change.uid)
        elif change.kind in ("create", "update") and dashboard is not None:
            body = {
                "dashboard": {**dashboard, "id": None},
                "folderUid": FOLDER,
                "message": message_of(dashboard),
                "overwrite": change.kind == "update",
            }
            with self._words(f"save the dashboard {change.uid} (that needs a token with the role Editor)"):
                self.api.dashboard.update_dashboard(body)

    def _there(self, uid: str) -> There:
        content: Json = self.api.dashboard.get_dashboard(uid)["dashboard"]
        answer = self.api.client.GET(f"/dashboards/uid/{uid}/versions", params={"limit": 10})
        versions: list[dict[str, Any]] = answer["versions"] if isinstance(answer, dict) else answer
        newest = max(versions, key=lambda version: int(version["version"]), default={})
        return There(content, str(newest.get("message") or ""))

    def _check_version(self) -> None:
        with self._words("say its version"):
            said = str(self.api.version or "")
        numbers = tuple(int(part) for part in said.split(".")[:2] if part.isdigit())
        if len(numbers) < len(OLDEST):
            raise SettingsError(f"Grafana at {self.url} does not say its version: '{said}'")
        if numbers < OLDEST:
            raise SettingsError(
                f"Grafana at {self.url} is {said}; the dashboards need {OLDEST[0]}.{OLDEST[1]} or newer. Nothing was changed."
            )

    @contextlib.contextmanager
    def _words(self, what: str) -> Iterator[None]:
        """The one boundary where what may go wrong becomes ours."""
        try:
            yield
        except GrafanaUnauthorizedError as error:
            raise SettingsError(f"Grafana at {self.url} does not know the token (401): make one for a service account") from error
        except GrafanaClientError as error:
            why = error.response.get("message") if isinstance(error.response, dict) else None
            raise SettingsError(f"Grafana at {self.url} refuses to {what}: {error.status_code} {why or ''}".rstrip()) from error
        except GrafanaException as error:
            raise Unavailable(f"Grafana at {self.url} could not {what}: {error.message or 'no answer in time'}") from error
        except niquests.exceptions.JSONDecodeError as error:
            raise SettingsError(f"what answers at {self.url} is no Grafana: it sent no JSON") from error
        except (niquests.exceptions.RequestException, OSError) as error:
            raise Unavailable(f"Grafana at {self.url} does not answer: {type(error).__name__}") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SettingsError(f"what answers at {self.url} is no Grafana that this version knows: {error}") from error


def source(prometheus: str) -> Json:
    """Our data source: a Prometheus that is asked with POST, for long queries, and says how often it scrapes."""
    return {
        "uid": SOURCE_UID,
        "name": SOURCE_NAME,
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus,
        "jsonData": {"httpMethod": "POST", "timeInterval": "5s"},
    }


def source_differs(existing: Json | None, prometheus: str) -> bool:
    """Whether our data source is missing or other than wanted."""
    wanted = source(prometheus)
    if existing is None:
        return True
    data = existing.get("jsonData")
    kept = data if isinstance(data, dict) else {}
    told = {"httpMethod": "POST", "timeInterval": "5s"}
    same = all(existing.get(key) == wanted[key] for key in ("name", "type", "url"))
    return not same or any(kept.get(key) != value for key, value in told.items())

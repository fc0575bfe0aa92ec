"""Pushing dashboards, against a fake that speaks Grafana's HTTP API.

Grafana itself cannot be run where these tests run. The fake answers as Grafana's documentation of its
API says, with its status codes and bodies: folders, search, dashboards with versions, data sources, the token check.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from dashboards.build import dashboards
from dashboards.grafana import Grafana, read_token
from dashboards.plan import Change
from dashboards.push import push
from trimtab.errors import Missing, SettingsError, Unavailable

TOKEN = "glsa_secret"


class FakeGrafana:
    """State and routes; `versions_as_object` answers as later Grafanas do. `refuse`: (method, path start) -> what is answered."""

    def __init__(self) -> None:
        self.version = "11.2.0"
        self.versions_as_object = False
        self.refuse: dict[tuple[str, str], tuple[int, Any]] = {}
        self.folders: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.dashboards: dict[str, list[dict[str, Any]]] = {}  # uid -> saved versions
        self.writes: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                url = urlparse(self.path)
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    status, answer = 401, {"message": "Invalid API key", "messageId": "api-key.invalid", "statusCode": 401}
                else:
                    status, answer = fake.answer(self.command, url.path, parse_qs(url.query), body)
                kind, data = "application/json; charset=UTF-8", json.dumps(answer).encode()
                if isinstance(answer, str):
                    kind, data = "text/html", answer.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = _any

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        for (refused, start), answer in self.refuse.items():
            if method == refused and path.startswith(start):
                return answer
        if method != "GET":
            self.writes.append(f"{method} {path}")
        parts = path.removeprefix("/api/").split("/")
        match (method, *parts):
            case ("GET", "frontend", "settings"):
                return 200, {"buildInfo": {"version": self.version, "commit": "x", "edition": "Open Source"}}
            case ("GET", "search"):
                found = [versions[-1]["dashboard"] for versions in self.dashboards.values()]
                return 200, [
                    {"uid": each["uid"], "title": each["title"], "type": "dash-db", "tags": each.get("tags", [])}
                    for each in found
                    if set(query["tag"]) <= set(each.get("tags", []))
                ]
            case ("GET", "folders", uid):
                return (200, self.folders[uid]) if uid in self.folders else (404, {"message": "folder not found"})
            case ("POST", "folders"):
                if body["uid"] in self.folders:
                    return 412, {"message": "the folder has been changed by someone else"}
                self.folders[body["uid"]] = {"uid": body["uid"], "title": body["title"], "version": 1}
                return 200, self.folders[body["uid"]]
            case ("GET", "datasources", "uid", uid):
                return (200, self.sources[uid]) if uid in self.sources else (404, {"message": "Data source not found"})
            case ("POST", "datasources"):
                if body["uid"] in self.sources:
                    return 409, {"message": "data source with the same uid already exists"}
                self.sources[body["uid"]] = {**body, "id": 1, "version": 1, "readOnly": False}
                return 200, {"datasource": self.sources[body["uid"]], "message": "Datasource added"}
            case ("PUT", "datasources", "uid", uid):
                self.sources[uid] = {**self.sources[uid], **body, "version": self.sources[uid]["version"] + 1}
                return 200, {"datasource": self.sources[uid], "message": "Datasource updated"}
            case _:
                return self._dashboards(method, parts, body)

    def _dashboards(self, method: str, parts: list[str], body: Any) -> tuple[int, Any]:
        match (method, *parts):
            case ("GET", "dashboards", "uid", uid) if uid in self.dashboards:
                newest = self.dashboards[uid][-1]
                return 200, {
                    "dashboard": newest["dashboard"],
                    "meta": {"folderUid": newest["folder"], "version": newest["version"]},
                }
            case ("GET", "dashboards", "uid", uid, "versions") if uid in self.dashboards:
                listed = [
                    {"version": each["version"], "message": each["message"], "createdBy": "sa"}
                    for each in reversed(self.dashboards[uid])
                ]
                return 200, {"continueToken": "", "versions": listed} if self.versions_as_object else listed
            case ("POST", "dashboards", "db"):
                return self._save(body)
            case ("DELETE", "dashboards", "uid", uid) if uid in self.dashboards:
                title = self.dashboards.pop(uid)[-1]["dashboard"]["title"]
                return 200, {"title": title, "message": f"Dashboard {title} deleted", "id": 1}
            case (_, "dashboards", *_):
                return 404, {"message": "Dashboard not found"}
        return 404, {"message": "Not found"}

    def _save(self, body: Any) -> tuple[int, Any]:
        uid = body["dashboard"]["uid"]
        if len(uid) > 40:
            return 400, {"message": "uid too long, max 40 characters"}
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        versions = self.dashboards.setdefault(uid, [])
        if versions and not body.get("overwrite") and body["dashboard"].get("version") != versions[-1]["version"]:
            return 412, {"status": "version-mismatch", "message": "The dashboard has been changed by someone else"}
        self.save(uid, body["dashboard"], body["message"], body["folderUid"])
        return 200, {"id": 1, "uid": uid, "status": "success", "version": versions[-1]["version"], "url": f"/d/{uid}"}

    def save(self, uid: str, dashboard: dict[str, Any], message: str, folder: str = "trimtab") -> None:
        """As by the API, or by a person in the browser."""
        versions = self.dashboards.setdefault(uid, [])
        number = len(versions) + 1
        versions.append(
            {"version": number, "message": message, "folder": folder, "dashboard": {**dashboard, "id": 7, "version": number}}
        )


@pytest.fixture
def grafana() -> Iterator[FakeGrafana]:
    fake = FakeGrafana()
    yield fake
    fake.close()


Push = Callable[..., list[Change]]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def do(grafana: FakeGrafana, said: list[str]) -> Push:
    def run(**how: Any) -> list[Change]:
        usual: dict[str, Any] = {"prometheus": "http://127.0.0.1:9090", "dry_run": False, "force": False}
        return push(Grafana.at(grafana.url, TOKEN), **(usual | how), say=said.append)

    return run


def kinds(changes: list[Change]) -> set[str]:
    return {change.kind for change in changes}


def test_a_push_makes_folder_source_and_dashboards_and_a_second_one_changes_nothing(grafana: FakeGrafana, do: Push) -> None:
    assert kinds(do()) == {"create"}
    assert set(grafana.dashboards) == set(dashboards())
    assert grafana.folders["trimtab"]["title"] == "Trimtab"
    assert grafana.sources["trimtab-prometheus"]["url"] == "http://127.0.0.1:9090"
    assert all(versions[-1]["folder"] == "trimtab" for versions in grafana.dashboards.values())
    grafana.writes.clear()
    assert kinds(do()) == {"keep"}
    assert grafana.writes == []


@pytest.mark.parametrize("as_object", [False, True])
def test_a_dashboard_edited_by_hand_stops_all_before_anything_is_written(grafana: FakeGrafana, do: Push, as_object: bool) -> None:
    grafana.versions_as_object = as_object
    do()
    edited = dict(grafana.dashboards["trimtab-fleet"][-1]["dashboard"], title="Mine")
    grafana.save("trimtab-fleet", edited, "made it mine")
    grafana.save("trimtab-gpus", grafana.dashboards["trimtab-gpus"][-1]["dashboard"], "trimtab 000000000000")  # an older push
    grafana.writes.clear()
    with pytest.raises(SettingsError, match=r"edited by hand in Grafana: trimtab-fleet\. Nothing was changed"):
        do(prometheus="http://elsewhere:9090")
    assert grafana.writes == []
    assert kinds(do(force=True)) == {"update", "keep"}
    assert grafana.dashboards["trimtab-fleet"][-1]["dashboard"]["title"] == "Trimtab / Fleet"
    assert kinds(do()) == {"keep"}


def test_a_dry_run_shows_a_diff_and_writes_nothing(grafana: FakeGrafana, do: Push, said: list[str]) -> None:
    do(dry_run=True)
    assert grafana.writes == [] and "data source would be created" in said and "trimtab-fleet would be created" in said
    do()
    older = dict(grafana.dashboards["trimtab-fleet"][-1]["dashboard"], title="Old title")
    grafana.save("trimtab-fleet", older, "trimtab 000000000000")
    said.clear()
    grafana.writes.clear()
    do(dry_run=True)
    assert grafana.writes == []
    assert "trimtab-fleet would be updated" in said and "trimtab-gpus is as wanted" in said
    assert '  -  "title": "Old title",' in said and '  +  "title": "Trimtab / Fleet",' in said
    assert not any('"version"' in line for line in said)


def test_only_our_own_leftovers_are_removed(grafana: FakeGrafana, do: Push) -> None:
    do()
    grafana.save("trimtab-retired", {"uid": "trimtab-retired", "title": "Old", "tags": ["trimtab"]}, "trimtab 0123456789ab")
    grafana.save("their-own", {"uid": "their-own", "title": "Theirs", "tags": ["trimtab"]}, "")
    grafana.save("trimtab-custom", {"uid": "trimtab-custom", "title": "No tag", "tags": []}, "")
    assert [change.uid for change in do() if change.kind == "remove"] == ["trimtab-retired"]
    assert {"their-own", "trimtab-custom"} < set(grafana.dashboards) and "trimtab-retired" not in grafana.dashboards


def test_a_leftover_that_was_edited_is_not_removed(grafana: FakeGrafana, do: Push) -> None:
    do()
    grafana.save("trimtab-retired", {"uid": "trimtab-retired", "title": "Kept", "tags": ["trimtab"]}, "I still use it")
    with pytest.raises(SettingsError, match="trimtab-retired"):
        do()
    assert "trimtab-retired" in grafana.dashboards


def test_a_dashboard_whose_tags_somebody_took_off_is_found_by_its_uid(grafana: FakeGrafana, do: Push) -> None:
    do()
    grafana.save("trimtab-fleet", dict(grafana.dashboards["trimtab-fleet"][-1]["dashboard"], tags=[]), "no tags")
    with pytest.raises(SettingsError, match="trimtab-fleet"):
        do()


def test_the_data_source_is_updated_only_when_it_differs_and_left_alone_when_not_asked_for(
    grafana: FakeGrafana, do: Push
) -> None:
    do(prometheus=None)
    assert grafana.sources == {}
    do()
    do(prometheus="http://other:9090")
    assert grafana.sources["trimtab-prometheus"]["url"] == "http://other:9090"
    assert grafana.sources["trimtab-prometheus"]["version"] == 2


def test_a_wrong_token_is_told_without_showing_it(grafana: FakeGrafana) -> None:
    with pytest.raises(SettingsError, match=r"does not know the token \(401\)") as caught:
        Grafana.at(grafana.url, "glsa_wrong")
    assert "glsa_wrong" not in str(caught.value)


def test_a_token_that_may_not_write_is_told_with_what_it_needs(grafana: FakeGrafana, do: Push) -> None:
    forbidden = (403, {"message": "You'll need additional permissions to perform this action"})
    grafana.refuse["POST", "/api/folders"] = forbidden
    with pytest.raises(SettingsError, match="role Editor.*403 You'll need additional permissions"):
        do()
    grafana.refuse = {("GET", "/api/datasources"): forbidden}
    with pytest.raises(SettingsError, match="role Admin"):
        do()
    assert grafana.dashboards == {}


@pytest.mark.parametrize("version", ["9.5.21", "7.0.0-beta1"])
def test_an_older_grafana_is_refused(grafana: FakeGrafana, version: str) -> None:
    grafana.version = version
    with pytest.raises(SettingsError, match=r"need 10\.0 or newer\. Nothing was changed"):
        Grafana.at(grafana.url, TOKEN)


def test_what_is_no_grafana_is_said_to_be_none(grafana: FakeGrafana) -> None:
    grafana.refuse["GET", "/api/frontend/settings"] = (200, "<html>Please log in</html>")
    with pytest.raises(SettingsError, match="no Grafana"):
        Grafana.at(grafana.url, TOKEN)
    with pytest.raises(SettingsError, match="begins with http"):
        Grafana.at("grafana.example.org", TOKEN)


def test_a_grafana_that_is_away_or_broken_is_unavailable(grafana: FakeGrafana, do: Push) -> None:
    grafana.refuse["POST", "/api/dashboards/db"] = (500, {"message": "database is locked"})
    with pytest.raises(Unavailable, match="database is locked"):
        do()
    grafana.refuse.clear()
    assert kinds(do()) == {"create"}  # what was done before is no obstacle
    grafana.close()
    with pytest.raises(Unavailable, match="does not answer"):
        Grafana.at("http://127.0.0.1:1", TOKEN)


@pytest.mark.parametrize("content", [b"", b"\n", b"two tokens", b"line\nline", b"\xff\xfe"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises((SettingsError, Missing)):
        read_token(tmp_path / "token")


def test_a_token_file_may_end_with_a_new_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
    with pytest.raises(Missing, match="cannot be read"):
        read_token(tmp_path / "none")

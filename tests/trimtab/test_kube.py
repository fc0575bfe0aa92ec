"""The Kubernetes API as JSON, and watches, against a small server that says what it is told to: each kind of trouble on purpose.

The real API server is met in the e2e tests of the parts.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from trimtab.errors import Missing, Unavailable
from trimtab.kube import REQUESTS, Kube, KubeError, connect, fleet_name, fleet_path, path_of
from trimtab.kube_watch import Watcher, _differences

PODS = path_of("pods", "prod")


def thing(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"namespace": "prod", "name": name, "resourceVersion": str(version)}}


def listing(version: int, *names: str) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version)}, "items": [thing(name, version) for name in names]}


def gone() -> dict[str, Any]:
    return {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old resource version"}}


CUT = b"an answer that ends before its end"


class Server(ThreadingHTTPServer):
    """Answers from two scripts: one of lists, one of watches. When a script is at its end its last entry is repeated."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lists: list[Any] = []
        self.watches: list[Any] = []
        self.asked: list[dict[str, str]] = []
        self.callers: list[int] = []
        self.bodies: list[tuple[str, Any]] = []
        self.over = threading.Event()

    @staticmethod
    def next(script: list[Any]) -> Any:
        return script.pop(0) if len(script) > 1 else script[0]


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        self.server.asked.append(query)
        self.server.callers.append(self.client_address[1])
        answer = self.server.next(self.server.watches if "watch" in query else self.server.lists)
        if isinstance(answer, int | bytes | dict):
            self._whole(answer)
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in answer:
                if event == "stay":
                    self.server.over.wait(20)
                    return
                line = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
                for piece in (line[:7], line[7:]):  # events come in pieces
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def do_PATCH(self) -> None:
        self.server.asked += [query] if (query := {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}) else []
        size = int(self.headers["Content-Length"])
        self.server.bodies.append((self.headers["Content-Type"], json.loads(self.rfile.read(size))))
        self._whole(thing("patched", 9))

    def _whole(self, answer: int | bytes | dict[str, Any]) -> None:
        if answer == CUT:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b'{"items"')
            self.close_connection = True
            return
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if isinstance(answer, int):
            body = json.dumps({"kind": "Status", "reason": "Because", "message": f"no: {answer}"}).encode()
        self.send_response(answer if isinstance(answer, int) else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def kubeconfig(folder: Path, port: int) -> Path:
    file = folder / "kubeconfig"
    file.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [
                    {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "prod"}},
                    {"name": "there", "context": {"cluster": "c", "user": "u"}},
                ],
                "current-context": "here",
            }
        )
    )
    return file


@pytest.fixture
def kube(server: Server, tmp_path: Path) -> Kube:
    return connect(kubeconfig(tmp_path, server.server_port))


@pytest.fixture
def watcher(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    monkeypatch.setattr("trimtab.kube_watch._PAUSE_SECONDS", 0.01)
    watcher = Watcher(kube, PODS, selector="a=b")
    yield watcher
    watcher.stop()


def names(watcher: Watcher) -> set[str]:
    return {name for _, name in watcher.objects}


def wait(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_paths_and_names() -> None:
    assert path_of("pods") == "/api/v1/pods"
    assert fleet_path("prod") == "/apis/trimtab.dev/v1alpha1/namespaces/prod/modelfleets"
    assert fleet_path("prod", "intent", sub="status").endswith("/modelfleets/intent/status")
    assert fleet_name("prod", "intent") == "prod_intent"


def test_the_context_says_the_namespace(kube: Kube, server: Server, tmp_path: Path) -> None:
    assert kube.namespace == "prod"
    assert connect(kubeconfig(tmp_path, server.server_port), "there").namespace == "default"


@pytest.mark.parametrize("content", [None, "", "{", "a: b"])
def test_no_cluster_is_said_in_one_sentence(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "k"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Missing, match="no Kubernetes cluster is known"):
        connect(file)


def test_an_unknown_context_is_said(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Missing, match="nowhere"):
        connect(kubeconfig(tmp_path, server.server_port), "nowhere")


def test_requests_are_counted_by_verb_and_code(kube: Kube, server: Server) -> None:
    def counts() -> dict[tuple[str, str], float]:
        found = [sample for metric in REQUESTS.collect() for sample in metric.samples if sample.name.endswith("_total")]
        return {(sample.labels["verb"], sample.labels["code"]): sample.value for sample in found}

    before = counts()
    server.lists, server.watches = [{"items": []}, 404, {"items": []}], [[]]
    kube.get(PODS)
    with pytest.raises(KubeError):
        kube.get(PODS)
    kube.open("GET", PODS, {"watch": "true"}).read()
    server.shutdown()
    server.server_close()
    nobody = Kube(kube.new_client(), "prod")
    with pytest.raises(Unavailable):
        nobody.get(PODS)
    now = counts()
    more = {key: value - before.get(key, 0.0) for key, value in now.items() if value != before.get(key)}
    assert more == {("get", "200"): 1, ("get", "404"): 1, ("watch", "200"): 1, ("get", "none"): 1}


def test_refusals_carry_code_and_words(kube: Kube, server: Server) -> None:
    server.lists = [404, 403, 503, 429, b"<html>", CUT, {"items": []}]
    for code in (404, 403):
        with pytest.raises(KubeError, match=f"no: {code}") as refusal:
            kube.get(PODS)
        assert (refusal.value.status, refusal.value.reason) == (code, "Because")
    for words in ("answers 503", "answers 429", "not JSON", "broke off"):
        with pytest.raises(Unavailable, match=words):
            kube.get(PODS)
    assert kube.get(PODS, limit=1, empty=None) == {"items": []} and server.asked[-1] == {"limit": "1"}


def test_a_patch_is_a_merge_patch(kube: Kube, server: Server) -> None:
    assert kube.patch(fleet_path("prod", "intent"), {"spec": {"paused": True}})["metadata"]["name"] == "patched"
    assert server.bodies == [("application/merge-patch+json", {"spec": {"paused": True}})]


def test_server_side_apply_names_its_owner(kube: Kube, server: Server) -> None:
    kube.apply(path_of("pods", "prod", "a"), {"spec": {}}, manager="trimtab", force=False)
    assert server.bodies == [("application/apply-patch+yaml", {"spec": {}})] and server.asked == [
        {"fieldManager": "trimtab", "force": "false"}
    ]


def test_an_api_server_that_is_not_there(kube: Kube, server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(Unavailable, match="does not answer: .*[Rr]efused"):
        kube.get(PODS)


def test_events_change_what_is_known(watcher: Watcher, server: Server) -> None:
    server.lists = [listing(5, "a", "b")]
    changed = {"type": "MODIFIED", "object": thing("b", 7) | {"new": 1}}
    server.watches = [
        [{"type": "ADDED", "object": thing("c", 6)}, changed, {"type": "DELETED", "object": thing("a", 8)},
         {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "30"}}}],
        ["stay"],
    ]  # fmt: skip
    watcher.start()
    assert watcher.wait_synced(5)
    wait(lambda: len(server.asked) == 3)
    assert names(watcher) == {"b", "c"} and watcher.objects["prod", "b"]["new"] == 1 and watcher.problem is None
    # The second watch goes on after the bookmark, without another list.
    assert [query.get("resourceVersion") for query in server.asked] == [None, "5", "30"]
    assert all(query["labelSelector"] == "a=b" for query in server.asked)


@pytest.mark.parametrize("how", [[gone()], 410])
def test_an_expired_version_begins_again_with_a_list(watcher: Watcher, server: Server, how: Any) -> None:
    server.lists = [listing(5, "a"), listing(90, "b")]
    server.watches = [how, ["stay"]]
    watcher.start()
    wait(lambda: names(watcher) == {"b"})
    wait(lambda: len(server.asked) == 4)
    assert server.asked[-1]["resourceVersion"] == "90" and watcher.problem is None


def test_each_change_is_heard_once_after_events_and_after_a_second_list(server: Server, kube: Kube) -> None:
    server.lists = [
        listing(5, "a", "b"),
        {"metadata": {"resourceVersion": "90"}, "items": [thing("a", 5), thing("c", 80), thing("d", 6)]},
    ]
    server.watches = [[{"type": "ADDED", "object": thing("c", 6)}, {"type": "ADDED", "object": thing("d", 6)}, gone()], ["stay"]]
    heard: list[tuple[str, str]] = []
    watcher = Watcher(kube, PODS, heard=lambda kind, each: heard.append((kind, each["metadata"]["name"]))).start()
    wait(lambda: len(server.asked) == 4)
    watcher.stop()
    assert heard == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c"), ("ADDED", "d"), ("DELETED", "b"), ("MODIFIED", "c")]
    assert watcher.get("prod", "b") is None and (watcher.get("prod", "c") or {})["metadata"]["resourceVersion"] == "80"


def test_an_object_made_again_under_its_name_is_another() -> None:
    old, new = thing("a", 1), thing("a", 2)
    old["metadata"]["uid"], new["metadata"]["uid"] = "1", "2"
    assert _differences({("prod", "a"): old}, {("prod", "a"): new}) == [("DELETED", old), ("ADDED", new)]


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (503, "answers 503"),
        (403, "no: 403"),
        ([b"{not json\n"], "broke off"),
        ([b'{"type": "ADDED", "object": {}}\n'], "metadata"),
    ],
)
def test_while_there_is_trouble_what_was_known_is_kept(watcher: Watcher, server: Server, trouble: Any, words: str) -> None:
    server.lists = [listing(5, "a")]
    server.watches = [trouble]
    watcher.start()
    wait(lambda: watcher.problem)
    assert words in str(watcher.problem) and names(watcher) == {"a"}
    server.watches = [[{"type": "ADDED", "object": thing("b", 6)}, "stay"]]
    wait(lambda: names(watcher) == {"a", "b"})
    assert watcher.problem is None


def test_before_the_first_list_nothing_is_known(watcher: Watcher, server: Server) -> None:
    server.lists = [503]
    watcher.start()
    wait(lambda: watcher.problem)
    assert not watcher.synced and not watcher.wait_synced(0)
    server.lists, server.watches = [{"no": "list"}], [["stay"]]
    wait(lambda: "no list of objects" in str(watcher.problem))
    server.lists = [listing(1)]
    wait(lambda: watcher.synced)


def test_a_watch_ends_at_once_when_it_is_stopped(watcher: Watcher, server: Server) -> None:
    server.lists, server.watches = [listing(5)], [["stay"]]
    watcher.start()
    wait(lambda: len(server.asked) == 2)
    watcher.stop(timeout=5)
    assert not watcher._thread.is_alive()


def test_a_watch_that_is_cut_shares_its_connection_with_nobody(watcher: Watcher, kube: Kube, server: Server) -> None:
    server.lists, server.watches = [listing(5)], [["stay"]]
    kube.get(PODS)
    watcher.start()
    wait(lambda: len(server.asked) == 3)
    kube.get(PODS)
    assert set(server.callers[1:3]).isdisjoint({server.callers[0], server.callers[3]})


def test_a_watch_goes_on_after_a_failure_that_nobody_foresaw(
    watcher: Watcher, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        monkeypatch.undo()
        raise AssertionError("a library's own")

    server.lists, server.watches = [listing(5, "a")], [["stay"]]
    monkeypatch.setattr(Kube, "open", broken)
    watcher.start()
    wait(lambda: watcher.synced)
    assert names(watcher) == {"a"}

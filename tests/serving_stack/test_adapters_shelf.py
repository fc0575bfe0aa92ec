"""The adapters in memory: fetched once, bounded, broken ones refused; a source that is a folder or behind HTTP."""

from __future__ import annotations

import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

EDGE = Path(__file__).parents[2] / "serving_stack" / "edge_model"
LAYER = "layer.0.query"
SHAPES = {"head": [4, "classes"], "bias": ["classes"], f"{LAYER}.down": [4, "rank"], f"{LAYER}.up": ["rank", 4]}
BYTES = 4 * (4 * 2 + 2 * 4 + 4 * 3 + 3)
"""Of one adapter in memory."""


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The backend's modules, imported as Triton's Python does it."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(EDGE))
    import shelf  # type: ignore[import-not-found]

    yield shelf
    for name in set(sys.modules) - before:
        if name in {"shelf", "adapters", "source", "trend"}:
            del sys.modules[name]


class Told:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.loads: list[tuple[str, int]] = []
        self.failures: list[str] = []
        self.gone = self.passed = 0

    def loaded(self, why: str, size: int, seconds: float) -> None:
        assert seconds >= 0
        self.loads.append((why, size))

    def evicted(self, count: int) -> None:
        self.gone += count

    def refused(self) -> None:
        self.passed += 1

    def failed(self, why: str) -> None:
        self.failures.append(why)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Six adapters, `a` to `f`."""
    for seed, name in enumerate("abcdef"):
        folder = tmp_path / name / "1"
        folder.mkdir(parents=True)
        chance = np.random.default_rng(seed)
        pair = {"A": chance.normal(size=(2, 4)), "B": chance.normal(size=(4, 2))}
        (folder / "adapter_model.safetensors").write_bytes(save({f"{LAYER}.lora_{k}.weight": v for k, v in pair.items()}))
        (folder / "head.safetensors").write_bytes(save({"weight": np.ones((3, 4)), "bias": np.zeros(3)}))
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
        (folder / "intents.json").write_text('["one", "two", "three"]')
    return tmp_path


def known(store: Path) -> dict[str, Any]:
    def about(file: Path) -> dict[str, Any]:
        return {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}

    return {name: {"version": 1, "files": {f.name: about(f) for f in (store / name / "1").iterdir()}} for name in "abcdef"}


def made(edge: Any, store: Path, room: int = 2, source: str | None = None, **more: Any) -> tuple[Any, Told]:
    told = Told()
    return edge.Shelf(known(store), edge.Source(source or str(store)), SHAPES, room * BYTES, told, **more), told


def test_a_miss_is_loaded_and_then_held(edge: Any, store: Path) -> None:
    shelf, told = made(edge, store)
    assert shelf.ask("a") is None
    adapter = shelf.load("a")
    assert shelf.ask("a") is adapter and shelf.load("a") is adapter
    assert adapter.bytes == BYTES and shelf.holds() == (1, BYTES)
    assert told.loads == [("miss", sum(f.stat().st_size for f in (store / "a" / "1").iterdir()))]
    assert shelf.shares()[0][0] == "a"


def test_memory_is_bounded_and_the_popular_stay(edge: Any, store: Path) -> None:
    shelf, told = made(edge, store)
    for name in ["a", "b"] * 20 + ["c", "d", "e", "f"]:
        if shelf.ask(name) is None:
            shelf.load(name)
        assert shelf.holds()[1] <= 2 * BYTES
    assert shelf.ask("a") is not None and shelf.ask("b") is not None
    assert told.passed == 4 and told.gone == 0


def test_an_adapter_is_fetched_once_however_many_wait_for_it(edge: Any, store: Path) -> None:
    shelf, told = made(edge, store)
    start = threading.Barrier(6)
    found: list[Any] = []

    def load() -> None:
        start.wait(10)
        found.append(shelf.load("a"))

    threads = [threading.Thread(target=load) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    assert len(found) == 6 and all(each is found[0] for each in found) and len(told.loads) == 1


def test_a_changed_file_is_refused_and_not_fetched_again_at_once(edge: Any, store: Path) -> None:
    now = [100.0]
    shelf, told = made(edge, store, clock=lambda: now[0])
    head = store / "a" / "1" / "head.safetensors"
    whole = head.read_bytes()
    for content in (whole[:-1] + b"!", whole[:-9], whole + b"more"):
        head.write_bytes(content)
        with pytest.raises(edge.Unfit, match=r"adapter a version 1 is broken: head.safetensors is not the file"):
            shelf.load("a")
        now[0] += 10
    head.write_bytes(whole)
    now[0] -= 6
    with pytest.raises(edge.Unfit):
        shelf.load("a")
    now[0] += 6
    assert shelf.load("a").bytes == BYTES
    assert told.failures == ["miss"] * 3


def test_files_that_cannot_be_had_are_another_error_than_broken_ones(edge: Any, store: Path) -> None:
    shelf, told = made(edge, store)
    (store / "b" / "1" / "intents.json").rename(store / "elsewhere.json")
    with pytest.raises(edge.Away, match=r"adapter b version 1 is not to be had: .*intents.json"):
        shelf.load("b")
    assert told.failures == ["miss"] and shelf.holds() == (0, 0)


def test_it_begins_with_what_was_popular_while_there_is_room(edge: Any, store: Path) -> None:
    shelf, told = made(edge, store, room=3)
    assert shelf.warm(["d", "gone", "b", "a", "c"], until=float("inf")) == ["d", "b", "a"]
    assert [why for why, _ in told.loads] == ["prefetch"] * 3
    shelf, _ = made(edge, store, room=3, clock=lambda: 5.0)
    assert shelf.warm(["a"], until=5.0) == []


def test_what_is_wanted_is_fetched_before_it_is_asked_for(edge: Any, store: Path) -> None:
    now = [100.0]
    shelf, told = made(edge, store, room=1, clock=lambda: now[0])
    for name in ["a"] * 10:
        if shelf.ask(name) is None:
            shelf.load(name)
    shelf.load("b")  # known from here on, but not worth a place
    for _ in range(60):
        shelf.ask("b")
    assert shelf.prefetch() == ["b"] and shelf.ask("b") is not None
    assert told.loads[-1][0] == "prefetch" and told.gone == 1
    assert shelf.prefetch() == []


def test_a_source_behind_http(edge: Any, store: Path) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(store)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        shelf, _ = made(edge, store, source=f"http://127.0.0.1:{server.server_port}/")
        assert shelf.load("a").intents.tolist() == [b"one", b"two", b"three"]
        (store / "b" / "1" / "intents.json").unlink()
        with pytest.raises(edge.Away, match="404"):
            shelf.load("b")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(edge.Away, match="not to be had"):
        shelf.load("c")

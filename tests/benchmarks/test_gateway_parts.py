"""What the benchmarks gateway, drain and overload are made of, without Triton and Envoy."""

from __future__ import annotations

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.gateway.turns import HttpClient, added, http_request, in_turns, share
from benchmarks.suite.drain import _changes
from benchmarks.suite.overload import SETTLE_SECONDS, _seen


@contextmanager
def server(*pieces: bytes) -> Iterator[int]:
    """Answers one request in these pieces, and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_an_answer_in_pieces_is_read_whole() -> None:
    pieces = (b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r\nhe", b"llo")
    with server(*pieces) as port, HttpClient(port) as client:
        assert client.ask(http_request("/x", b"{}")) == b"".join(pieces)


@pytest.mark.parametrize(
    ("piece", "error"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", ValueError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", ConnectionError),
        (b"", ConnectionError),
    ],
)
def test_what_is_no_good_answer_is_not_measured(piece: bytes, error: type[Exception]) -> None:
    with server(piece) as port, HttpClient(port) as client, pytest.raises(error):
        client.ask(http_request("/x"))


def test_all_take_turns() -> None:
    called: list[str] = []
    taken = in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 50)
    measured = called[40:]
    assert Counter(measured) == {"a": 50, "b": 50}
    assert all({*pair} == {"a", "b"} for pair in zip(measured[::2], measured[1::2], strict=True))
    assert {name: len(each) for name, each in taken.items()} == {"a": 50, "b": 50}


def test_a_stall_of_the_machine_is_not_what_the_gateway_adds() -> None:
    straight, through = [1.0] * 1000, [1.5] * 1000
    assert added(straight, through, 0.99) == 0.5
    through[300:340] = [90.0] * 40
    assert added(straight, through, 0.99) == 0.5
    assert added(straight, [1.5] * 970 + [90.0] * 30, 0.5) == 0.5
    assert added([1.0, 1.0], [2.0, 2.0], 0.99) == 1.0


def test_a_share_is_one_of_the_values() -> None:
    assert share([1.0, 2.0, 3.0], 0.5) == 2.0
    assert share([1.0, 2.0, 3.0], 0.99) == share([3.0], 0.0) == 3.0


def test_each_round_is_one_change_to_a_whole_fleet() -> None:
    fleets = [pools for _what, pools in itertools.islice(_changes(), 16)]
    assert all(sum(weight for *_, weight in pools) == 100 for pools in fleets)
    assert all(one != other for one, other in itertools.pairwise(fleets))
    assert {version for pools in fleets for version, role, *_ in pools if role == "stable"} == {1, 2}


def test_what_is_neither_answered_nor_refused_is_told_apart_and_the_beginning_left_out() -> None:
    def line(at: float, outcome: str, error: str | None = None) -> dict[str, object]:
        return {"at": at, "latency": 1.0, "outcome": outcome, "error": error}

    early, late = SETTLE_SECONDS - 1, SETTLE_SECONDS + 1
    lines = [
        line(early, "ok"),
        line(late, "ok"),
        line(late, "wrong"),
        line(late, "error", "HTTP 503"),
        line(late, "error", "HTTP 504"),
        line(SETTLE_SECONDS + 3, "ok"),
    ]
    seen = _seen(lines, SETTLE_SECONDS + 2)
    assert (seen["good/s"], seen["refused"], seen["other_errors"]) == (1.0, 1, 1)

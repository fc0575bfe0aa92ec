"""The supervisor on real processes: readiness, failures, restarts, ports, and that nothing is ever left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from embedded import ports
from embedded.supervisor import Event, ProcessFailed, ProcessSpec, Supervisor

SERVER = """
import sys, http.server
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:            # a grandchild in a session of its own, twice forked
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
print("grandchild started", flush=True)
time.sleep(600)
"""


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def with_mark(mark: str) -> list[int]:
    """Living processes whose environment or command line holds `mark`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and (
                mark in process.environ().get("MARK", "") or mark in " ".join(process.cmdline())
            ):
                found.append(process.pid)
        except psutil.Error:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.integration
def test_starts_in_order_and_stops_in_reverse(tmp_path: Path) -> None:
    events: list[Event] = []
    port = ports.free_ports(1)[0]
    with Supervisor(tmp_path, events.append) as supervisor:
        supervisor.start(
            [
                ProcessSpec("client", python("import time; time.sleep(600)"), after=("server",)),
                ProcessSpec("server", python(SERVER, port), ready=f"http://127.0.0.1:{port}/"),
            ]
        )
        assert [row.state for row in supervisor.table()] == ["ready", "ready"]
        assert wait_for(lambda: supervisor.peak_memory_bytes > 10_000_000)
    kinds = [(event.process, event.kind) for event in events]
    assert kinds == [
        ("server", "started"),
        ("server", "ready"),
        ("client", "started"),
        ("client", "ready"),
        ("client", "stopped"),
        ("server", "stopped"),
    ]


def test_a_process_that_dies_while_starting_says_its_last_words(tmp_path: Path) -> None:
    with (
        Supervisor(tmp_path) as supervisor,
        pytest.raises(ProcessFailed, match=r"(?s)broken ended: exit code 3.*no such model") as caught,
    ):
        supervisor.start([ProcessSpec("broken", python("import sys; print('no such model'); sys.exit(3)"), ready=lambda: False)])
    assert "no such model" in str(caught.value)


def test_a_program_that_does_not_exist(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor, pytest.raises(ProcessFailed, match=r"(?s)exit code 127.*no-such-program"):
        supervisor.start([ProcessSpec("absent", ["/no-such-program"], ready=lambda: False)])


def test_a_server_that_ends_well_before_it_was_ready_has_failed(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor, pytest.raises(ProcessFailed, match="ended before it was ready"):
        supervisor.start([ProcessSpec("brief", python("print('bye')"), ready=lambda: False)])


def test_never_ready_is_killed_and_said(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        with pytest.raises(ProcessFailed, match=r"slow was not ready within 0\.5 s"):
            supervisor.start(
                [ProcessSpec("slow", python("import time; time.sleep(600)"), ready=lambda: False, ready_timeout=0.5)]
            )
        assert wait_for(lambda: supervisor.process("slow").tree() == [])


def test_what_waits_for_a_failed_process_is_not_started(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        with pytest.raises(ProcessFailed, match="first ended"):
            supervisor.start(
                [
                    ProcessSpec("first", python("raise SystemExit(1)"), ready=lambda: False),
                    ProcessSpec("second", python("import time; time.sleep(600)"), after=("first",)),
                ]
            )
        assert [row.name for row in supervisor.table()] == ["first"]


@pytest.mark.parametrize(("after", "words"), [(("ghost",), "which nobody starts"), (("self",), "wait for each other")])
def test_impossible_orders_are_refused(tmp_path: Path, after: tuple[str, ...], words: str) -> None:
    with Supervisor(tmp_path) as supervisor, pytest.raises(ProcessFailed, match=words):
        supervisor.start([ProcessSpec("self", python("pass"), after=after)])


@pytest.mark.integration
def test_restarts_on_failure_until_the_limit(tmp_path: Path) -> None:
    events: list[Event] = []
    with Supervisor(tmp_path, events.append) as supervisor:
        process = supervisor.spawn(ProcessSpec("flaky", python("raise SystemExit(4)"), restart="on_failure", restart_limit=2))
        assert process.wait_ended(20) == 4
    kinds = [event.kind for event in events]
    assert kinds.count("restarted") == 2
    assert kinds.count("exited") == 3
    assert "failed" in kinds


def test_a_one_off_that_ends_well_is_not_restarted(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        process = supervisor.spawn(ProcessSpec("train", python("print('done')"), restart="on_failure"))
        assert process.wait_ended(10) == 0
        assert process.state == "exited"
        assert process.last_lines() == "\n    done"


def test_a_taken_port_is_replaced_by_a_free_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ports.free_ports
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        lost = thief.getsockname()[1]
        given = iter([[lost], real(1)])
        monkeypatch.setattr(ports, "free_ports", lambda count: next(given))

        def make(some: list[int]) -> ProcessSpec:
            return ProcessSpec("server", python(SERVER, some[0]), ready=lambda: some[0] != lost and ports.taken(some[0]))

        with Supervisor(tmp_path) as supervisor:
            assert supervisor.start_on_free_ports(1, make) != [lost]
            assert supervisor.process("server").state == "ready"


def test_free_ports_are_free_and_differ() -> None:
    given = ports.free_ports(20)
    assert len(set(given)) == 20
    assert not any(ports.taken(port) for port in given)


def test_stop_ends_stubborn_trees_and_stopped_processes(tmp_path: Path) -> None:
    mark = f"stop-{tmp_path.name}-{os.getpid()}"
    with Supervisor(tmp_path) as supervisor:
        stubborn = supervisor.spawn(ProcessSpec("stubborn", python(STUBBORN), env=os.environ | {"MARK": mark}, stop_timeout=0.3))
        assert wait_for(lambda: "grandchild" in stubborn.last_lines())
        frozen = supervisor.spawn(ProcessSpec("frozen", python("import time; time.sleep(600)"), env=os.environ | {"MARK": mark}))
        assert wait_for(lambda: len(with_mark(mark)) == 3)
        frozen.signal_tree(signal.SIGSTOP)
    assert with_mark(mark) == []
    assert frozen.state == "stopped"


def test_what_a_killed_process_leaves_is_removed(tmp_path: Path) -> None:
    mine, other = tmp_path / "region-a-1", tmp_path / "region-b-1"
    for file in (mine, other):
        file.touch()
    with Supervisor(tmp_path / "logs") as supervisor:
        spec = ProcessSpec("killed", python("import time; time.sleep(600)"), leftovers=(str(tmp_path / "region-a"),))
        process = supervisor.spawn(spec)
        process.wait_ready()
        process.signal_tree(signal.SIGKILL)
        assert process.wait_ended(10) == 128 + signal.SIGKILL
    assert not mine.exists()
    assert other.exists()


# A shell that starts jobs in the background has them ignore SIGINT, and the tests may be one.
PARENT = """
import os, signal, sys, time
from pathlib import Path
from embedded.supervisor import ProcessSpec, Supervisor
signal.signal(signal.SIGINT, signal.default_int_handler)
folder, code, mark, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
with Supervisor(folder) as supervisor:
    for name in ("one", "two"):
        supervisor.spawn(ProcessSpec(name, [sys.executable, "-c", code], env=dict(os.environ, MARK=mark), stop_timeout=0.3))
    while not all("grandchild" in supervisor.process(name).last_lines() for name in ("one", "two")):
        time.sleep(0.02)
    print("up", flush=True)
    if how == "crash":
        os.abort()
    if how == "error":
        raise RuntimeError("an error in the supervisor")
    time.sleep(600)
"""


@pytest.mark.integration
@pytest.mark.parametrize("how", ["kill", "interrupt", "crash", "error"])
def test_nothing_is_left_however_the_supervisor_ends(tmp_path: Path, how: str) -> None:
    mark = f"{how}-{tmp_path.name}-{os.getpid()}"
    parent = subprocess.Popen(
        python(PARENT, tmp_path, STUBBORN, mark, how),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    assert parent.stdout is not None
    try:
        assert parent.stdout.readline() == b"up\n"
        if how in ("kill", "interrupt"):
            # The parent, two children, two grandchildren.
            assert wait_for(lambda: len(with_mark(mark)) >= 5), with_mark(mark)
            parent.send_signal(signal.SIGKILL if how == "kill" else signal.SIGINT)
        parent.wait(120)
        assert wait_for(lambda: with_mark(mark) == []), with_mark(mark)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


@pytest.mark.integration
def test_a_killed_leash_takes_its_tree_with_it(tmp_path: Path) -> None:
    mark = f"leash-{tmp_path.name}-{os.getpid()}"
    with Supervisor(tmp_path) as supervisor:
        process = supervisor.spawn(ProcessSpec("child", python(STUBBORN), env=os.environ | {"MARK": mark}))
        assert wait_for(lambda: "grandchild" in process.last_lines())
        assert process.pid is not None
        leash = psutil.Process(process.pid).parent()
        assert leash is not None
        leash.kill()
        assert process.wait_ended(15) == 128 + signal.SIGKILL
        assert wait_for(lambda: with_mark(mark) == []), with_mark(mark)

"""A leash: the tiny parent of one child process, which leaves nothing behind when the supervisor goes.

Run as a script with only the standard library (``python -I -S leash.py``). Its standard input is a pipe from the supervisor:
first one JSON line ``{"argv", "env", "cwd", "log", "leftovers"}``, then commands ``stop SECONDS``. When that pipe ends, for
whatever reason (Ctrl-C, a crash, ``kill -9``), every descendant is killed, also those in sessions of their own: as the
subreaper of its descendants the leash stays their ancestor when they daemonise. Its standard output says ``pid N`` once. It
exits with the child's exit code, or 128 + signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_AFTER_LOSS_SECONDS = 1.0
"""How long descendants may take to end by SIGTERM after the supervisor was lost, before SIGKILL."""


def prctl(option: int, value: int) -> None:
    """Call Linux's prctl; the two options used here cannot fail on any kernel of the last ten years."""
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """All living descendants of `root` (zombies left out), from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - as below
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123 - importing pathlib takes too long here
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if fields[0] not in (b"Z", b"X"):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def send(pids: list[int], number: int) -> None:
    """Signal all of `pids`; those that are gone are skipped."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def start(spec: dict[str, object], leash: int) -> int:
    """Fork and exec the child in a session of its own, its output in the log; 127 and words in the log if that fails."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != leash:
            os._exit(126)  # the leash died before the line above
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        log = os.open(str(spec["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        argv, env = spec["argv"], spec["env"]
        assert isinstance(argv, list) and isinstance(env, dict)
        os.chdir(str(spec["cwd"]))
        os.execvpe(argv[0], argv, env)  # noqa: S606 - starting exactly this program is the purpose
    except BaseException as error:
        os.write(2, f"cannot start: {error}\n".encode())
    finally:
        os._exit(127)


def reap(child: int) -> int | None:
    """Collect ended children; the exit code of `child` once it has ended, else None."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)


def sweep() -> None:
    """SIGKILL descendants until none is left, also those that are forked meanwhile."""
    while pids := descendants(os.getpid()):
        send(pids, signal.SIGKILL)
        reap(0)
        time.sleep(0.005)
    reap(0)


def clean_up(leftovers: list[str]) -> None:
    """Remove the files whose paths begin with one of `leftovers`: shared memory that a killed process could not remove."""
    for prefix in leftovers:
        folder, start_of_name = os.path.split(prefix)
        for name in os.listdir(folder):  # noqa: PTH208 - as above
            if start_of_name and name.startswith(start_of_name):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))  # noqa: PTH108, PTH118 - as above


def main() -> int:
    """Start the child, wait for its end or for the supervisor's, and leave nothing behind."""
    wake_read, wake_write = os.pipe()
    for descriptor in (wake_read, wake_write):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(wake_write)
    stopped_by_signal = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: stopped_by_signal.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    received = b""
    while b"\n" not in received:
        more = os.read(0, 65536)
        if not more:
            return 0  # the supervisor went before it asked for anything
        received += more
    line, received = received.split(b"\n", 1)
    spec = json.loads(line)
    child = start(spec, os.getpid())
    os.write(1, f"pid {child}\n".encode())
    os.close(1)

    deadline: float | None = None
    watched = [0, wake_read]
    code: int | None = None
    while True:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable = select.select(watched, [], [], timeout)[0]
        if wake_read in readable:
            os.read(wake_read, 4096)
        lost = bool(stopped_by_signal)
        if 0 in readable:
            more = os.read(0, 65536)
            received += more
            lost = lost or not more
        code = reap(child)
        if code is not None:
            break
        if lost:
            watched = [wake_read]
            stopped_by_signal.clear()
            pids = descendants(os.getpid())
            send(pids, signal.SIGTERM)
            send(pids, signal.SIGCONT)
            deadline = min(deadline or float("inf"), time.monotonic() + GRACE_AFTER_LOSS_SECONDS)
        while b"\n" in received:
            command, received = received.split(b"\n", 1)
            deadline = time.monotonic() + float(command.split()[1])
            send([child], signal.SIGTERM)
            send(descendants(os.getpid()), signal.SIGCONT)  # a stopped process cannot hear SIGTERM
        if deadline is not None and time.monotonic() >= deadline:
            send(descendants(os.getpid()), signal.SIGKILL)
            deadline = time.monotonic() + 0.02
    sweep()
    clean_up(spec["leftovers"])
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())

"""Free loopback ports for child processes.

A port is found by binding port 0 and given to the child, so between the two another process can take it. That is rare and
cannot be excluded from outside; who starts a process on such ports asks `taken` when it failed and tries others.
"""

from __future__ import annotations

import errno
import socket
import threading

_given: set[int] = set()
_lock = threading.Lock()


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports on 127.0.0.1 that are free now and were not given out before by this process."""
    sockets: list[socket.socket] = []
    ports: list[int] = []
    try:
        with _lock:
            while len(ports) < count:
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                sockets.append(sock)
                sock.bind(("127.0.0.1", 0))
                port = int(sock.getsockname()[1])
                if port not in _given:
                    _given.add(port)
                    ports.append(port)
    finally:
        for sock in sockets:
            sock.close()
    return ports


def taken(port: int) -> bool:
    """Whether another process listens on this loopback port (or on the port of all interfaces)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return True
            raise
    return False

"""Which versions are in use: a replica holds a lock on its version's manifest for as long as its process lives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from serving_stack.repository_manifest import MANIFEST
from trimtab.errors import Missing, TrimtabError

_NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def hold(folder: Path) -> int:
    """Hold a version as in use; the descriptor outlives `exec`, and the kernel lets go when the last process that has it ends.

    Raises `Missing` when the version was removed meanwhile. On a disk without locks nothing is
    held, and nothing there counts as free.
    """
    manifest = folder / MANIFEST
    try:
        opened = os.open(manifest, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Missing(f"{folder} is broken: {MANIFEST} is missing") from None
    except OSError as error:
        raise TrimtabError(f"{manifest} is not readable: {error.strerror}") from error
    try:
        fcntl.flock(opened, fcntl.LOCK_SH)
        if os.fstat(opened).st_ino != manifest.stat().st_ino:
            raise FileNotFoundError
    except FileNotFoundError:
        os.close(opened)
        raise Missing(f"{folder} was removed from the repository") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    os.set_inheritable(opened, True)
    return opened


def in_use(folder: Path) -> bool | None:
    """Whether a process serves the version now; None when that cannot be told here."""
    try:
        with taken(folder):
            return False
    except Served:
        return True
    except Untold:
        return None


class Served(TrimtabError):
    """The version is served now."""


class Untold(TrimtabError):
    """It cannot be told whether the version is served."""


@contextlib.contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Keep everyone from beginning to serve a version. Raises `Served` or `Untold`."""
    try:
        opened = os.open(folder / MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Untold(f"it cannot be told whether {folder} is served: its {MANIFEST}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Served(f"{folder} is served now: take it out of traffic first") from None
        except OSError as error:
            raise Untold(f"it cannot be told whether {folder} is served: its disk has no locks ({error.strerror})") from error
        yield
    finally:
        os.close(opened)

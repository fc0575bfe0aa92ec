"""What the repository does with the disk: copies that are on it for certain, locks that a killed process lets go, sizes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from trimtab.errors import TrimtabError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CHUNK = 1 << 20


def put(source: Path | bytes, target: Path) -> tuple[str, int]:
    """Write a new file that nobody may change, on the disk when this returns; its (SHA-256, bytes), of what was written."""
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as out:
        for chunk in _chunks(source):
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        out.flush()
        os.fchmod(out.fileno(), 0o444)
        os.fsync(out.fileno())
    return digest.hexdigest(), size


def _chunks(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as content:
        while chunk := content.read(_CHUNK):
            yield chunk


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk: without it a renamed version could be gone after a power cut."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sha256(file: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def folder_bytes(folder: Path) -> int:
    """The sizes of all files below a folder; what disappears meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):  # goes on where something disappears
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118
    return total


@contextlib.contextmanager
def locked(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold a folder's lock, shared or `alone`; waits for it. The kernel lets it go when this process dies, however it dies."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        except OSError as error:
            raise TrimtabError(f"{folder} cannot be locked ({error.strerror}): change the store where its disk is") from error
        yield
    finally:
        os.close(opened)


@contextlib.contextmanager
def full_disk_in_words(store: Path) -> Iterator[None]:
    """A disk that is full becomes a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise TrimtabError(f"{store} has no room for the version ({error.strerror}): nothing was published") from error
        raise

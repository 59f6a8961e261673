"""Operations on the file system: locks, modes, syncs and errors."""

from __future__ import annotations

import errno
import fcntl
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from heroimg.errors import StoreFull, StoreUnavailable

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_no_room(error: OSError) -> bool:
    """Return whether the error means that the disk, or the user's quota, has no bytes or inodes left."""
    return error.errno in _NO_ROOM


@contextmanager
def store_errors() -> Iterator[None]:
    """Raise StoreFull or StoreUnavailable in place of the system's errors."""
    try:
        yield
    except OSError as error:
        raise (StoreFull if is_no_room(error) else StoreUnavailable) from error


def open_to_lock(path: str) -> BinaryIO:
    """Open a file to read it and to lock it. On NFS a file can be locked only if it is open for writing.

    https://man7.org/linux/man-pages/man2/flock.2.html, "NFS details"
    """
    return open(path, "r+b", buffering=0)


def lock(file: BinaryIO, *, wait: bool) -> None:
    """Lock a file against other processes and threads.

    :raises BlockingIOError: the file is locked already, and `wait` is false.
    :raises StoreUnavailable: the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError as error:
        raise StoreUnavailable from error


def private_opener(path: str | Path, flags: int) -> int:
    """Create files with mode 0600, whatever the umask is."""
    return os.open(path, flags, 0o600)


def unlink_if_there(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def is_linked(file: BinaryIO | io.FileIO) -> bool:
    """Return whether an open file still has a name."""
    return os.fstat(file.fileno()).st_nlink > 0


def sync_folder(folder: str | Path) -> None:
    """Put the names in a folder on stable storage."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

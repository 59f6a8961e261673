"""A picture as it arrives on the disk, and what file_store.py asks of the system beside."""

from __future__ import annotations

import errno
import fcntl
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from heroimg.errors import StoreFull, StoreUnavailable
from heroimg.stores.base import new_image_id

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class StagedFile(io.FileIO):
    """A picture as it arrives. Its writer holds its lock, so that a sweep can tell it from a leftover."""

    def __init__(self, folder: Path) -> None:
        self.id = new_image_id()
        self._folder = folder
        self._is_published = False
        super().__init__(self._path(".part"), "x+", opener=private_opener)
        fcntl.flock(self, fcntl.LOCK_EX)

    def _path(self, suffix: str = "") -> str:
        return f"{self._folder}/{self.id}{suffix}"

    def write(self, data: Any, /) -> int:
        """Write all of it: a nearly full disk takes a part first, and refuses only what follows."""
        with translated():
            rest = memoryview(data)
            while rest:
                rest = rest[super().write(rest) :]
        return len(data)

    def publish(self) -> None:
        """Give the picture the name under which it is visible."""
        os.rename(self._path(".part"), self._path())
        self._is_published = True

    def close(self) -> None:
        if not self.closed and not self._is_published:
            unlink_if_there(self._path(".part"))
        super().close()


def open_staged_file(folder: Path) -> StagedFile:
    """Open a new part; again, if a sweep took the first for a leftover before it was locked."""
    while not is_linked(part := StagedFile(folder)):
        part.close()
    return part


@contextmanager
def translated() -> Iterator[None]:
    """Turn the system's errors into ours."""
    try:
        yield
    except OSError as error:
        raise (StoreFull if error.errno in _NO_ROOM else StoreUnavailable) from error


def unlink_if_there(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def private_opener(path: str | Path, flags: int) -> int:
    """Create files with mode 0600, whatever the umask."""
    return os.open(path, flags, 0o600)


def is_linked(file: BinaryIO | io.FileIO) -> bool:
    """Tell whether an open file still has a name."""
    return os.fstat(file.fileno()).st_nlink > 0


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on stable storage."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

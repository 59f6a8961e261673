"""A picture while it arrives: `<id>.part`, locked by its writer, and renamed to `<id>` once it is complete.

The lock tells sweeps that the file is in use. The kernel drops the lock when the writer dies, so an unlocked part is a
leftover. If a part is closed before it is published, it is removed.
"""

from __future__ import annotations

import fcntl
import io
import os
from typing import Any

from heroimg.stores.files.disk import is_linked, private_opener, store_errors, unlink_if_there
from heroimg.stores.image import new_image_id


class StagedFile(io.FileIO):
    """The file of a picture that arrives, open for reading and writing."""

    def __init__(self, folder: str) -> None:
        self.id = new_image_id()
        self._path = f"{folder}/{self.id}"
        self._is_published = False
        super().__init__(f"{self._path}.part", "x+", opener=private_opener)
        try:
            fcntl.flock(self, fcntl.LOCK_EX)
        except OSError:
            self.close()
            raise

    def write(self, data: Any, /) -> int:
        """Write all of the data. A nearly full disk accepts some of the data, and refuses only the next write."""
        with store_errors():
            rest = memoryview(data)
            while rest:
                rest = rest[super().write(rest) :]
        return len(data)

    def publish(self) -> None:
        """Give the picture the name that makes it visible."""
        os.rename(f"{self._path}.part", self._path)
        self._is_published = True

    def close(self) -> None:
        if not self.closed and not self._is_published:
            unlink_if_there(f"{self._path}.part")
        super().close()


def open_staged_file(folder: str) -> StagedFile:
    """Create a `.part` file. If a sweep removes the file before it is locked, create another."""
    while not is_linked(part := StagedFile(folder)):
        part.close()
    return part

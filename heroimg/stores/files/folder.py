"""The folder that holds the pictures: its mode, its room, its names, and a lock on each picture.

A process that changes or removes a picture holds a lock (flock) on the picture itself. After locking, the process
checks that the picture still exists. If the process dies, the kernel drops the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, ClassVar

from heroimg.config import ConfigError
from heroimg.errors import ImageNotFound, StoreFull, StoreUnavailable
from heroimg.stores.base import Room
from heroimg.stores.files.admission import refuse_foreign
from heroimg.stores.files.disk import (
    is_linked,
    is_no_room,
    lock,
    open_to_lock,
    store_errors,
    sync_folder,
    unlink_if_there,
)
from heroimg.stores.files.staged import StagedFile, open_staged_file
from heroimg.stores.image import is_image_id

# One inode stays free for each 2 MiB of HEROIMG_MIN_FREE_BYTES, by default 128 inodes. Each change of a sidecar writes
# a new file, which needs an inode for a moment.
_BYTES_PER_INODE = 2 * 1024 * 1024


class Folder:
    """A folder of pictures. It is created with mode 0700.

    :param min_free_bytes: new pictures are refused if the disk has fewer free bytes.
    :raises ConfigError: the folder cannot be used. The message says why.
    """

    # The `_identity` of each checked folder, by its path. gunicorn's workers inherit it from the master, and do not
    # check the folder again. So a foreign file cannot stop a worker that replaces a killed worker.
    _admitted: ClassVar[dict[str, tuple[int, int, int]]] = {}

    def __init__(self, path: Path, min_free_bytes: int) -> None:
        self.name = str(path)
        self._path = path
        self.min_free_bytes = min_free_bytes
        self.min_free_inodes = min_free_bytes // _BYTES_PER_INODE
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._admit()
            self._probe()
        except OSError as error:
            if not is_no_room(error):  # the pictures in a full folder can still be handed over
                raise ConfigError([self._advice(error.strerror)]) from error

    def path_of(self, image_id: str, suffix: str = "") -> str:
        """Return the path of one of a picture's files.

        The path is a str, because Path objects took 14 % of the Python time of a customer's journey.
        """
        return f"{self.name}/{image_id}{suffix}"

    def open_part(self) -> StagedFile:
        """Create a `.part` file for a picture that arrives.

        :raises StoreFull: the disk has too little room for more pictures.
        """
        self.admit()
        self._refuse_without_room()
        with store_errors():
            return open_staged_file(self.name)

    def admit(self) -> None:
        """Check the folder again if it was replaced since the last check, or has another mode.

        :raises StoreUnavailable: it is not a folder for pictures any more; the cause says what an operator can do.
        """
        try:
            self._admit()
        except OSError as error:
            raise StoreUnavailable from OSError(self._advice(error.strerror))

    @contextmanager
    def locked(self, image_id: str, *, wait: bool = True) -> Iterator[BinaryIO]:
        """Hold the lock on a picture, and return the open picture.

        :raises ImageNotFound: there is no such picture, or it was removed before we had the lock.
        :raises StoreUnavailable: the folder itself is missing, for example because its disk is not mounted.
        :raises BlockingIOError: another process holds the lock, and `wait` is false.
        """
        with self._open(image_id) as picture:
            lock(picture, wait=wait)
            with store_errors():
                try:
                    if not is_linked(picture):
                        raise ImageNotFound
                    yield picture
                finally:
                    # While a claim's stream (a dup of this file) is open, closing the file does not unlock it.
                    fcntl.flock(picture, fcntl.LOCK_UN)

    def unlink(self, image_id: str) -> None:
        """Remove a picture's files, the picture first. If a crash stops this, the other files are leftovers."""
        for suffix in ("", ".json", ".new"):
            unlink_if_there(self.path_of(image_id, suffix))

    def sync(self) -> None:
        """Put the names in the folder on stable storage."""
        sync_folder(self.name)

    def check(self) -> None:
        """Check that pictures can be kept (see `ImageStore.check`)."""
        self.admit()
        try:
            self._probe()
        except OSError as error:
            if not is_no_room(error):
                raise StoreUnavailable from OSError(self._advice(error.strerror))
            self._refuse_without_room()
            raise StoreFull from OSError(f"{self.name} takes no more files ({error.strerror}): free some room")
        self._refuse_without_room()

    def _open(self, image_id: str) -> BinaryIO:
        if not is_image_id(image_id):
            raise ImageNotFound
        with store_errors():
            try:
                return open_to_lock(self.path_of(image_id))
            except FileNotFoundError:
                self.admit()
                raise ImageNotFound from None

    def _admit(self) -> None:
        if self._identity() == self._admitted.get(self.name):
            return
        mode = os.stat(self.name).st_mode
        if mode & stat.S_ISVTX:
            raise OSError(errno.EPERM, "it is shared, as /tmp is")
        refuse_foreign(self.name)
        if mode & 0o077:
            self._path.chmod(0o700)
        self._sync_parents()
        self._admitted[self.name] = self._identity()

    def _identity(self) -> tuple[int, int, int]:
        status = os.stat(self.name)
        return status.st_dev, status.st_ino, status.st_mode

    def _probe(self) -> None:
        """Check that a file can be created and locked, and that a second lock on it is refused.

        :raises OSError: the check failed.
        """
        with open_staged_file(self.name) as part, open_to_lock(self.path_of(part.id, ".part")) as same:
            try:
                fcntl.flock(same, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            raise OSError(errno.ENOLCK, "locks (flock) do not keep others out")

    def _sync_parents(self) -> None:
        """Put the folder's own name on stable storage. Otherwise a power cut could remove a new folder."""
        for parent in self._path.parents:
            with suppress(OSError):  # a parent that we cannot sync is not ours
                sync_folder(parent)

    def room(self) -> Room:
        """Return what is free on the folder's file system."""
        with store_errors():
            room = os.statvfs(self.name)
        return Room(room.f_bavail * room.f_frsize, room.f_favail if room.f_files else None)

    def _refuse_without_room(self) -> None:
        room = self.room()
        if room.bytes < self.min_free_bytes:
            raise StoreFull from OSError(
                f"{self.name} has {room.bytes:,} bytes free, and uploads are refused below HEROIMG_MIN_FREE_BYTES="
                f"{self.min_free_bytes}: free some room, or set it lower"
            )
        if room.inodes is not None and room.inodes < self.min_free_inodes:
            raise StoreFull from OSError(
                f"{self.name} has {room.inodes} inodes free, and uploads are refused below {self.min_free_inodes}, "
                f"which is one for each 2 MiB of HEROIMG_MIN_FREE_BYTES={self.min_free_bytes}: remove files from this "
                "disk, or lower that setting"
            )

    def _advice(self, fault: str | None) -> str:
        return (
            f"HEROIMG_UPLOAD_DIR is {self.name}, where pictures cannot be kept ({fault}): make it a folder that "
            f"belongs to the user running heroimg (uid {os.geteuid()}), or name another; "
            "for example /var/lib/heroimg/uploads"
        )

"""Sweeping a folder: remove the pictures that have expired, and the files that a crash left.

A sweep reads names and modification times, and only the sidecars that may be due. There are three kinds of leftovers: a
`.part` file that no process has locked, a `.json` or `.new` file without a picture, and a picture that is truncated or
has no valid sidecar. A `.new` file with a picture is removed, but not counted. A file that another process has locked
is in use, so the sweep skips it.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress

from heroimg.errors import ImageNotFound, StoreUnavailable
from heroimg.logs import short
from heroimg.stores.base import Swept
from heroimg.stores.files.disk import lock, open_to_lock, unlink_if_there
from heroimg.stores.files.folder import Folder
from heroimg.stores.files.sidecar import Sidecars, move_back
from heroimg.stores.image import StoredImage, is_image_id


class FolderSweep:
    """One sweep of a folder.

    :param now: returns the current time in whole Unix seconds. It is called for each picture.
    """

    def __init__(self, folder: Folder, sidecars: Sidecars, now: Callable[[], int]) -> None:
        self._folder = folder
        self._sidecars = sidecars
        self._now = now
        self._ids: dict[str, set[str]] = {"": set(), ".part": set(), ".json": set(), ".new": set()}
        self._expired = list[StoredImage]()
        self._with_sessions_to_end = list[str]()
        self._leftovers = 0
        self._failures = list[str]()

    def run(self, seconds: float | None = None) -> Swept:
        """Read all names, and remove what is due.

        :param seconds: stop after this time. The first id is always swept.
        """
        due = self._read_names()
        # Add pictures without a sidecar, sidecars without a picture, and all .part and .new files.
        due |= (self._ids[""] ^ self._ids[".json"]) | self._ids[".part"] | self._ids[".new"]
        ids = [image_id for image_id in due if is_image_id(image_id)]
        random.shuffle(ids)  # otherwise all sweeps that stop early could look at the same ids
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        while ids:
            self._sweep_id(ids.pop())
            if time.monotonic() >= deadline:
                break
        return Swept(
            tuple(self._expired), self._leftovers, tuple(self._with_sessions_to_end), failures=tuple(self._failures)
        )

    def _read_names(self) -> set[str]:
        """Collect the ids of each suffix, and return the ids whose sidecar is due."""
        due, now = set(), self._now()
        with os.scandir(self._folder.name) as entries:
            for entry in entries:
                image_id, suffix = entry.name[:32], entry.name[32:]
                if suffix not in self._ids:
                    continue
                self._ids[suffix].add(image_id)
                try:
                    if suffix == ".json" and self._sidecars.is_due(entry.stat().st_mtime, now):
                        due.add(image_id)
                except OSError:
                    due.add(image_id)  # if the file still exists, _sweep_id notes the error
        return due

    def _sweep_id(self, image_id: str) -> None:
        try:
            if image_id in self._ids[""]:
                self._sweep_picture(image_id)
            elif image_id in self._ids[".part"]:
                self._sweep_part(image_id)
            else:
                self._sweep_sidecar(image_id)
        except (BlockingIOError, FileNotFoundError, ImageNotFound):
            pass  # another process uses the files, or has removed them
        except (OSError, StoreUnavailable) as error:
            self._failures.append(f"{short(image_id)} in {self._folder.name}: {error.__cause__ or error}")

    def _sweep_picture(self, image_id: str) -> None:
        with self._folder.locked(image_id, wait=False) as picture:
            now = self._now()
            try:
                image, sidecar = self._sidecars.read(image_id, now)
            except ImageNotFound:
                self._folder.unlink(image_id)
                self._leftovers += 1
                return
            if image.expires <= now:
                self._folder.unlink(image_id)
                self._expired.append(image)
                return
            unlink_if_there(self._folder.path_of(image_id, ".new"))
            if ahead := image.seconds_stored_ahead(now):
                self._sidecars.replace(image_id, move_back(picture, sidecar, ahead))
            if image.sessions_to_end:
                self._with_sessions_to_end.append(image_id)

    def _sweep_part(self, image_id: str) -> None:
        path = self._folder.path_of(image_id, ".part")
        with open_to_lock(path) as part:
            lock(part, wait=False)
            os.unlink(path)
        self._leftovers += 1
        if self._is_gone(image_id):
            self._folder.unlink(image_id)

    def _sweep_sidecar(self, image_id: str) -> None:
        if self._is_gone(image_id):
            self._folder.unlink(image_id)
            self._leftovers += 1

    def _is_gone(self, image_id: str) -> bool:
        """Check again that a sidecar has no picture.

        While another process renames a `.part` file, the list of names may have neither the old nor the new name. Look
        for the `.part` file first: if it is gone, no rename can follow.
        """
        for suffix in (".part", ""):
            with suppress(FileNotFoundError):  # os.path.exists would treat a disk error as a missing file
                os.stat(self._folder.path_of(image_id, suffix))
                return False
        return True

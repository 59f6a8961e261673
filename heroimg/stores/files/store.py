"""FileStore: pictures as files in one folder of one machine.

A picture's files have these names:

    <id>.part   the picture while it arrives, locked by its writer (staged.py)
    <id>.json   the sidecar, which holds everything but the bytes (sidecar.py)
    <id>        the picture, visible from the moment it has this name
    <id>.new    the next sidecar, until it replaces `<id>.json`

The order of the steps makes it safe to kill a process at any point. To keep a picture, the store first writes the
sidecar. The store then renames the `.part` file, which makes the picture visible. To remove a picture, the store first
unlinks the picture, which makes it invisible. A sweep removes what a killed process has left (sweeping.py).

The modification time of a picture is the instant at which it was kept. If the clock was ahead at that instant, a sweep
or a pin moves the picture's times back (`seconds_stored_ahead`). Otherwise the picture would be kept too long.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import cast

from heroimg.config import Config
from heroimg.errors import ImageNotFound
from heroimg.findings import Finding
from heroimg.stores.base import Claimed, Clock, Held, ImageStore, Room, Staged, Swept
from heroimg.stores.files.disk import store_errors
from heroimg.stores.files.folder import Folder
from heroimg.stores.files.setup import check_folder
from heroimg.stores.files.sidecar import Sidecar, Sidecars, move_back
from heroimg.stores.files.staged import StagedFile
from heroimg.stores.files.sweeping import FolderSweep
from heroimg.stores.image import StoredImage, is_image_id, new_record

_FILE_NAME = re.compile(r"([0-9a-f]{32})(|\.json)")


class FileStore(ImageStore):
    """Pictures in `config.upload_dir`, which is created with mode 0700; files have mode 0600.

    :raises ConfigError: the folder cannot be used. The message says why.
    """

    def __init__(self, config: Config, clock: Clock) -> None:
        self._image_seconds = config.image_seconds
        self._claim_seconds = config.claim_seconds
        self._clock = clock
        self._folder = Folder(config.upload_dir, config.min_free_bytes)
        self._sidecars = Sidecars(self._folder, config.image_seconds)

    def stage(self) -> Staged:
        return self._folder.open_part()

    def keep(self, staged: Staged, media_type: str) -> StoredImage:
        part = cast(StagedFile, staged)
        size, now = part.seek(0, os.SEEK_END), self._now()
        sidecar = new_record(media_type, size, now, self._image_seconds)
        with store_errors():
            try:
                self._sidecars.create(part.id, sidecar)
                os.utime(part.fileno(), (now, now))
                part.publish()
            except OSError:
                self._folder.unlink(part.id)
                raise
        return StoredImage.from_fields(part.id, sidecar, now)

    def get(self, image_id: str) -> StoredImage:
        if not is_image_id(image_id):
            raise ImageNotFound
        with store_errors():
            return self._read_current(image_id)[0]

    def pin(self, image_id: str, until: int, renewed: int = 0) -> StoredImage:
        with self._folder.locked(image_id) as picture:
            now = self._now()
            image, sidecar = self._sidecars.read_current(image_id, now)
            if ahead := image.seconds_stored_ahead(now):
                sidecar = move_back(picture, sidecar, ahead)
            if sidecar["expires"] < until:
                sidecar["expires"] = max(until, renewed)
            os.fsync(picture.fileno())
            self._sidecars.replace(image_id, sidecar)
            self._folder.sync()
            return StoredImage.from_fields(image_id, sidecar, now)

    def note(self, image_id: str, change: Callable[[StoredImage], StoredImage]) -> tuple[StoredImage, StoredImage]:
        with self._folder.locked(image_id):
            before, sidecar = self._read_current(image_id)
            after = change(before)
            if after != before:
                noted = sidecar | after.checkout_fields()
                self._sidecars.replace(image_id, {name: value for name, value in noted.items() if value != ""})
            self._folder.sync()  # sync even if nothing changed: an earlier call may have failed before this line
            return before, after

    def claim(self, image_id: str, token: str) -> Claimed:
        with self._folder.locked(image_id) as picture:
            now = self._now()
            image, sidecar = self._sidecars.read_current(image_id, now)
            image.refuse_others(token, now)
            stream = os.fdopen(os.dup(picture.fileno()), "rb", buffering=0)
            try:
                self._write_claim(image_id, sidecar, token, now)
            except OSError:
                stream.close()
                raise
            return Claimed(image, stream)

    def renew(self, image_id: str, token: str) -> None:
        with self._folder.locked(image_id):
            now = self._now()
            image, sidecar = self._sidecars.read_current(image_id, now)
            image.refuse_others(token, now)
            if sidecar.get("claim_token") != token:
                raise ImageNotFound
            self._write_claim(image_id, sidecar, token, now)

    def release(self, image_id: str, token: str) -> None:
        with suppress(ImageNotFound), self._folder.locked(image_id):
            image, sidecar = self._read_current(image_id)
            if image.claim and image.claim.token == token:
                del sidecar["claim_token"], sidecar["claim_until"]
                self._sidecars.replace(image_id, sidecar)

    def remove(self, image_id: str, token: str | None = None) -> StoredImage | None:
        with suppress(ImageNotFound), self._folder.locked(image_id):
            now = self._now()
            image, _ = self._sidecars.read_current(image_id, now)
            image.refuse_others(token, now)
            self._folder.unlink(image_id)
            return image
        return None

    def sweep(self, seconds: float | None = None) -> Swept:
        self._folder.admit()
        return FolderSweep(self._folder, self._sidecars, self._now).run(seconds)

    @store_errors()
    def held(self) -> Held:
        pictures = dict[str, os.stat_result]()
        current = set[str]()
        with os.scandir(self._folder.name) as entries:
            for entry in entries:
                name = _FILE_NAME.fullmatch(entry.name)
                with suppress(FileNotFoundError):
                    if name and not name[2]:
                        pictures[name[1]] = entry.stat()
                    elif name and self._is_current(name[1], entry.stat()):
                        current.add(name[1])
        held = [pictures[image_id] for image_id in current & pictures.keys()]
        return Held(
            images=len(held),
            size=sum(picture.st_size for picture in held),
            oldest=min((int(picture.st_mtime) for picture in held), default=None),
        )

    def images(self) -> Iterator[StoredImage]:
        with os.scandir(self._folder.name) as entries:
            for entry in entries:
                with suppress(ImageNotFound):
                    yield self.get(entry.name)

    def room(self) -> Room:
        return self._folder.room()

    def check(self) -> None:
        self._folder.check()

    def check_setup(self) -> Iterator[Finding]:
        return check_folder(self._folder)

    def _now(self) -> int:
        return int(self._clock())

    def _read_current(self, image_id: str) -> tuple[StoredImage, Sidecar]:
        return self._sidecars.read_current(image_id, self._now())

    def _write_claim(self, image_id: str, sidecar: Sidecar, token: str, now: int) -> None:
        claim = {"claim_token": token, "claim_until": now + self._claim_seconds}
        self._sidecars.replace(image_id, sidecar | claim)

    def _is_current(self, image_id: str, sidecar_status: os.stat_result) -> bool:
        """Return whether a picture can be retrieved.

        If the sidecar seems due, read it. Its modification time is not the expiry if the picture has sessions to end,
        or if the sidecar was written by hand.
        """
        if sidecar_status.st_mtime > self._now():
            return True
        with suppress(ImageNotFound):
            self.get(image_id)
            return True
        return False

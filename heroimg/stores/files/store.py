"""FileStore: pictures as files in one folder of one machine.

A picture has at most four names, all of them known to the sweep:

    <id>.part   the picture while it arrives; its writer holds a lock on it
    <id>.json   the sidecar: mimetype, timestamp, size, expires, and claim and the checkout's notes while there are any
    <id>        the picture, visible from the moment it has this name
    <id>.new    the next sidecar, for the moment between its writing and the rename over the old one

The order of things is what makes it safe to be killed at any point. Keeping writes the sidecar first and then renames
the part, which publishes both at once. Removing unlinks the picture first, which unpublishes both. So a lone sidecar, a
lone next sidecar and a part that nobody locks are leftovers, and a picture without a valid sidecar is one too.

Whoever changes or removes a picture holds a lock (flock) on the picture itself, which the kernel drops if the process
dies, and looks after taking it whether the file is still linked. A sidecar's modification time is set to the instant
its picture expires, so that a sweep reads only the sidecars that are due, and a picture's to the instant it was kept.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import random
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from heroimg.config import Config, ConfigError
from heroimg.errors import ImageNotFound, StoreFull, StoreUnavailable
from heroimg.logs import short
from heroimg.stores.base import (
    Claim,
    Claimed,
    Clock,
    Held,
    ImageStore,
    Staged,
    StoredImage,
    Swept,
    is_image_id,
)
from heroimg.stores.files.staged import (
    StagedFile,
    is_linked,
    open_staged_file,
    private_opener,
    sync_folder,
    translated,
    unlink_if_there,
)

log = logging.getLogger(__name__)

_NAME = re.compile(r"([0-9a-f]{32})(|\.part|\.json|\.new)")
_NO_SIDECAR = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
_LEFTOVER = ("leftovers",)


class FileStore(ImageStore):
    """Pictures in `config.upload_dir`, which is created with mode 0700; files have mode 0600.

    :raises ConfigError: the folder cannot be made or written.
    """

    def __init__(self, config: Config, clock: Clock) -> None:
        self._folder = config.upload_dir
        self._folder_name = str(config.upload_dir)
        self._config = config
        self._clock = clock
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = self._folder.stat().st_mode
            if mode & stat.S_ISVTX:
                raise ConfigError([_unusable(self._folder, "it is shared, as /tmp is")])
            if mode & 0o077:
                self._folder.chmod(0o700)
            self._sync_its_name()
            self._probe()
        except OSError as error:
            raise ConfigError([_unusable(self._folder, error.strerror)]) from error

    def stage(self) -> Staged:
        self._refuse_without_room()
        with translated():
            return open_staged_file(self._folder)

    def keep(self, staged: Staged, media_type: str) -> StoredImage:
        part = cast(StagedFile, staged)
        size = part.seek(0, os.SEEK_END)
        now = self._now()
        sidecar = {"mimetype": media_type, "timestamp": now, "size": size, "expires": now + self._config.image_seconds}
        with translated():
            try:
                self._write_sidecar(self._path(part.id, ".json"), sidecar)
                os.utime(part.fileno(), (now, now))
                part.publish()
            except OSError:
                unlink_if_there(self._path(part.id, ".json"))
                raise
        return _image(part.id, sidecar, size, now)

    def get(self, image_id: str) -> StoredImage:
        if not is_image_id(image_id):
            raise ImageNotFound
        with translated():
            return self._read_current(image_id)[0]

    def pin(self, image_id: str, until: int, renewed: int = 0) -> StoredImage:
        with self._locked(image_id) as picture:
            image, sidecar = self._read_current(image_id)
            if image.expires < until:
                sidecar["expires"] = max(until, renewed)
            os.fsync(picture.fileno())
            self._replace_sidecar(image_id, sidecar)
            sync_folder(self._folder)
            return _image(image_id, sidecar, image.size, self._now())

    def note_checkout(self, image_id: str, session_id: str | None = None, *, complete: bool = False) -> StoredImage:
        with self._locked(image_id):
            image, sidecar = self._read_current(image_id)
            if session_id:
                sidecar["checkout_session"] = session_id
            if complete:
                sidecar["checkout_complete"] = True
            self._replace_sidecar(image_id, sidecar)
            # Without its note a picture could be given a second checkout, while the first can still be paid.
            sync_folder(self._folder)
            return image

    def claim(self, image_id: str, token: str) -> Claimed:
        with self._locked(image_id) as picture:
            image, sidecar = self._read_current(image_id)
            now = self._now()
            image.refuse_others(token, now)
            sidecar["claim"] = {"token": token, "until": now + self._config.claim_seconds}
            stream = os.fdopen(os.dup(picture.fileno()), "rb", buffering=0)
            try:
                self._replace_sidecar(image_id, sidecar)
            except OSError:
                stream.close()
                raise
            return Claimed(image, stream)

    def release(self, image_id: str, token: str) -> None:
        with suppress(ImageNotFound), self._locked(image_id):
            image, sidecar = self._read_current(image_id)
            if image.claim and image.claim.token == token:
                del sidecar["claim"]
                self._replace_sidecar(image_id, sidecar)

    def remove(self, image_id: str, token: str | None = None) -> StoredImage | None:
        image = None
        with suppress(ImageNotFound), self._locked(image_id):
            with suppress(ImageNotFound):
                image, _ = self._read_current(image_id)
                image.refuse_others(token, self._now())
            self._unlink(image_id)
        return image

    def sweep(self, seconds: float | None = None) -> Swept:
        names, due = self._look_through()
        # A picture without its sidecar, a sidecar without its picture, and what only a crash leaves.
        due |= (names[""] ^ names[".json"]) | names[".part"] | names[".new"]
        ids = [image_id for image_id in due if is_image_id(image_id)]
        random.shuffle(ids)  # sweeps that end early do not all look at the same ones
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        swept = Counter[str]()
        while ids:
            image_id = ids.pop()
            swept.update(self._sweep_image(image_id, {suffix for suffix in names if image_id in names[suffix]}))
            if time.monotonic() >= deadline:
                break
        return Swept(**swept, unseen=len(ids))

    def held(self) -> Held:
        pictures = dict[str, os.stat_result]()
        current = set[str]()
        with os.scandir(self._folder) as entries:
            for entry in entries:
                known = _NAME.fullmatch(entry.name)
                with suppress(FileNotFoundError):
                    if known and not known[2]:
                        pictures[known[1]] = entry.stat()
                    elif known and known[2] == ".json" and self._is_current(entry):
                        current.add(known[1])
        found = [pictures[image_id] for image_id in current & pictures.keys()]
        return Held(
            images=len(found),
            size=sum(picture.st_size for picture in found),
            oldest=min((int(picture.st_mtime) for picture in found), default=None),
        )

    def check(self) -> None:
        try:
            self._probe()
        except OSError as error:
            raise StoreUnavailable from OSError(_unusable(self._folder, error.strerror))
        self._refuse_without_room()

    def _is_current(self, sidecar: os.DirEntry[str]) -> bool:
        """Tell by a sidecar whether its picture can be retrieved. One made by hand is read: its time says nothing."""
        if sidecar.stat().st_mtime > self._now():
            return True
        with suppress(ImageNotFound):
            self.get(sidecar.name.removesuffix(".json"))
            return True
        return False

    # One picture: reading, locking, changing

    def _now(self) -> int:
        return int(self._clock())

    def _path(self, image_id: str, suffix: str = "") -> str:
        # A string: a journey has thirty of them, and as many Paths took a seventh of what it costs in Python.
        return f"{self._folder_name}/{image_id}{suffix}"

    def _read_current(self, image_id: str) -> tuple[StoredImage, dict[str, Any]]:
        """Read a picture whose time is not over.

        :raises ImageNotFound: it is, or there is no such picture, or not all of it.
        """
        image, sidecar = self._read(image_id)
        if image.expires <= self._now():
            raise ImageNotFound
        return image, sidecar

    def _read(self, image_id: str) -> tuple[StoredImage, dict[str, Any]]:
        """Read a picture's sidecar, and look whether the picture is there, as long as when it was kept.

        A power cut can leave a picture that was never pinned shorter than it was.
        """
        try:
            with open(self._path(image_id, ".json"), "rb", buffering=0) as file:
                sidecar = json.loads(file.read())
            size = os.stat(self._path(image_id)).st_size
            sidecar.setdefault("expires", sidecar["timestamp"] + self._config.image_seconds)
            image = _image(image_id, sidecar, size, self._now())
        except (FileNotFoundError, *_NO_SIDECAR) as error:
            raise ImageNotFound from error
        if sidecar.get("size", size) != size:
            raise ImageNotFound
        return image, sidecar

    @contextmanager
    def _locked(self, image_id: str, *, wait: bool = True) -> Iterator[BinaryIO]:
        """Hold the lock on a picture that exists; the file is open for reading meanwhile.

        :raises ImageNotFound: there is none, or it was removed while we waited.
        :raises BlockingIOError: another holds the lock, and we were not to wait.
        """
        picture = self._open(image_id)
        with picture:
            fcntl.flock(picture, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            try:
                if not is_linked(picture):
                    raise ImageNotFound
                with translated():
                    yield picture
            finally:
                # Said, not left to close(): a claim's stream is a duplicate that would keep the lock.
                fcntl.flock(picture, fcntl.LOCK_UN)

    def _open(self, image_id: str) -> BinaryIO:
        if not is_image_id(image_id):
            raise ImageNotFound
        with translated():
            try:
                return open(self._path(image_id), "rb")
            except FileNotFoundError:
                raise ImageNotFound from None

    def _replace_sidecar(self, image_id: str, sidecar: dict[str, Any]) -> None:
        new = self._path(image_id, ".new")
        try:
            # Synced, or a power cut could leave an empty sidecar in the place of one that was on stable storage.
            self._write_sidecar(new, sidecar, sync=True)
            os.rename(new, self._path(image_id, ".json"))
        except OSError:
            unlink_if_there(new)
            raise

    def _write_sidecar(self, path: str, sidecar: dict[str, Any], *, sync: bool = False) -> None:
        with open(path, "wb", opener=private_opener) as file:
            file.write(json.dumps(sidecar).encode())
            file.flush()
            os.utime(file.fileno(), (int(sidecar["expires"]), int(sidecar["expires"])))
            if sync:
                os.fsync(file.fileno())

    def _unlink(self, image_id: str) -> None:
        for suffix in ("", ".json", ".new"):
            unlink_if_there(self._path(image_id, suffix))

    # Sweeping

    def _look_through(self) -> tuple[dict[str, set[str]], set[str]]:
        """Find which ids there are under each suffix, and which of them have a sidecar whose time has come."""
        names: dict[str, set[str]] = {"": set(), ".part": set(), ".json": set(), ".new": set()}
        due, now = set(), self._now()
        with os.scandir(self._folder) as entries:
            for entry in entries:
                image_id, suffix = entry.name[:32], entry.name[32:]
                if suffix not in names:
                    continue
                names[suffix].add(image_id)
                try:
                    if suffix == ".json" and entry.stat().st_mtime <= now:
                        due.add(image_id)
                except OSError:
                    due.add(image_id)  # removed meanwhile, or _sweep_image says what is wrong with it
        return names, due

    def _sweep_image(self, image_id: str, suffixes: set[str]) -> Sequence[str]:
        """Remove what is due under one id, and say which of Swept's fields it counts for."""
        try:
            if "" in suffixes:
                return self._sweep_picture(image_id)
            if ".part" in suffixes:
                return self._sweep_part(image_id)
            return self._sweep_sidecar(image_id)
        except (BlockingIOError, FileNotFoundError, ImageNotFound):
            pass  # in use just now, or removed by another meanwhile: the next sweep comes in a minute
        except (OSError, StoreUnavailable) as error:
            log.error("cannot sweep %s in %s: %s", short(image_id), self._folder, error.__cause__ or error)
        return ()

    def _sweep_picture(self, image_id: str) -> Sequence[str]:
        with self._locked(image_id, wait=False):
            try:
                image = self._read(image_id)[0]
            except ImageNotFound:
                self._unlink(image_id)
                return _LEFTOVER
            if image.expires > self._now():
                unlink_if_there(self._path(image_id, ".new"))
                return ()
            self._unlink(image_id)
            return _how_it_expired(image)

    def _sweep_part(self, image_id: str) -> Sequence[str]:
        path = self._path(image_id, ".part")
        with open(path, "rb") as part:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        self._sweep_sidecar(image_id)
        return _LEFTOVER

    def _sweep_sidecar(self, image_id: str) -> Sequence[str]:
        """Remove a sidecar without a picture.

        The folder is read while others rename in it, and may show neither name of a part that is being published. So
        look again, at the part first: if that is gone, the picture is there or never will be.
        """
        for suffix in (".part", ""):
            with suppress(FileNotFoundError):  # not os.path.exists: to it, a disk's error is a file that is gone
                os.stat(self._path(image_id, suffix))
                return ()
        for suffix in (".json", ".new"):
            unlink_if_there(self._path(image_id, suffix))
        return _LEFTOVER

    # The folder

    def _sync_its_name(self) -> None:
        """Put on stable storage that there is this folder, or a power cut takes a new one with all that was synced."""
        for parent in self._folder.parents:
            with suppress(OSError):  # one that cannot be read or synced was not made by us
                sync_folder(parent)

    def _refuse_without_room(self) -> None:
        with translated():
            room = os.statvfs(self._folder)
        free = room.f_bavail * room.f_frsize
        if free < self._config.min_free_bytes:
            raise StoreFull from OSError(
                f"{self._folder} has {free:,} bytes free, and uploads are refused below HEROIMG_MIN_FREE_BYTES="
                f"{self._config.min_free_bytes}: free some room, or set it lower"
            )

    def _probe(self) -> None:
        """Find out by doing it whether files can be made here."""
        open_staged_file(self._folder).close()


def _image(image_id: str, sidecar: dict[str, Any], size: int, now: int) -> StoredImage:
    claim = sidecar.get("claim")
    last = Claim(str(claim["token"]), int(claim["until"])) if claim else None
    return StoredImage(
        id=image_id,
        media_type=str(sidecar["mimetype"]),
        size=size,
        stored=int(sidecar["timestamp"]),
        expires=int(sidecar["expires"]),
        checkout_session=sidecar.get("checkout_session"),
        checkout_complete=sidecar.get("checkout_complete", False),
        claim=last if last and last.until > now else None,
        claim_lapsed=last is not None and last.until <= now,
    )


def _how_it_expired(image: StoredImage) -> Sequence[str]:
    is_claimed = image.claim is not None or image.claim_lapsed
    if image.checkout_complete:
        log.warning(
            "%s was paid for (checkout %s) and never %s, and its time is over: its owner may ask, or want a refund; "
            "if that happens more than once, set HEROIMG_PAID_SECONDS higher",
            short(image.id), short(image.checkout_session or ""), "confirmed" if is_claimed else "fetched",
        )  # fmt: skip
    if is_claimed:
        return ("expired", "lapsed") if image.claim_lapsed else ("expired",)
    return ("expired", "unclaimed", "unfetched") if image.checkout_complete else ("expired", "unclaimed")


def _unusable(folder: Path, why: str | None) -> str:
    return (
        f"HEROIMG_UPLOAD_DIR is {folder}, where pictures cannot be kept ({why}): make it a folder that "
        f"belongs to the user running heroimg (uid {os.geteuid()}), or name another; "
        "for example /var/lib/heroimg/uploads"
    )

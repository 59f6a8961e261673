"""The sidecar of a picture: `<id>.json`, a JSON object with the fields that heroimg/stores/image.py declares.

In memory, a sidecar is a dict of those fields by name. In the file, `claim_token` and `claim_until` are written as
`{"claim": {"token": ..., "until": ...}}`. A sidecar that was written by hand needs only `mimetype` and `timestamp`.
Without `expires`, the picture expires HEROIMG_IMAGE_SECONDS after `timestamp`.

A change is written to `<id>.new`, synced, and renamed over the sidecar. If the disk has no room for another file, the
change is written into the sidecar itself, because a paid picture must be handed over even if the disk is full. For
this, each sidecar has 4 KB, one block of the disk, in two slots of 2 KB. A new sidecar starts at the first slot, and
blanks fill the file. A change is written as a checksum, a version and the JSON text, into the slot that does not hold
the current fields. Readers use the valid slot with the highest version. So neither a crash nor a power cut can damage
the current fields, and no reader sees half a change.

The modification time of a sidecar is the instant at which its picture expires. Usually a sweep reads a sidecar only
after that instant. If the picture has sessions to end, the modification time is 0, so every sweep reads the sidecar. A
sweep also reads a sidecar whose modification time is too far in the future (`is_due`), because the clock may have been
ahead when the picture was kept.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from typing import Any, BinaryIO

from heroimg.errors import ImageNotFound
from heroimg.stores.files.disk import is_no_room, private_opener, unlink_if_there
from heroimg.stores.files.folder import Folder
from heroimg.stores.image import MAX_AHEAD_SECONDS, StoredImage

Sidecar = dict[str, Any]

_SLOT_BYTES = 2048

_INVALID = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class Sidecars:
    """The sidecars in a folder. To change a sidecar, the caller must hold the lock on its picture."""

    def __init__(self, folder: Folder, image_seconds: int) -> None:
        self._folder = folder
        self._image_seconds = image_seconds

    def read(self, image_id: str, now: int) -> tuple[StoredImage, Sidecar]:
        """Read a picture's sidecar, and check that the picture exists and has the noted size.

        A power cut can truncate a picture that was never pinned.

        :returns: the picture, which may have expired, and its sidecar.
        :raises ImageNotFound: there is no such picture, or it is truncated.
        :raises StoreUnavailable: the folder itself is missing, for example because its disk is not mounted.
        """
        try:
            with open(self._folder.path_of(image_id, ".json"), "rb", buffering=0) as file:
                sidecar = _from_json(_current_text(file.read())[1])
            size = os.stat(self._folder.path_of(image_id)).st_size
            sidecar.setdefault("expires", sidecar["timestamp"] + self._image_seconds)
            if sidecar.setdefault("size", size) != size:
                raise ImageNotFound
            return StoredImage.from_fields(image_id, sidecar, now), sidecar
        except FileNotFoundError as error:
            self._folder.admit()
            raise ImageNotFound from error
        except _INVALID as error:
            raise ImageNotFound from error

    def read_current(self, image_id: str, now: int) -> tuple[StoredImage, Sidecar]:
        """Read a picture that has not expired.

        :raises ImageNotFound: there is no such picture, or it has expired, or it is truncated.
        """
        image, sidecar = self.read(image_id, now)
        if image.expires <= now:
            raise ImageNotFound
        return image, sidecar

    def is_due(self, modified: float, now: int) -> bool:
        """Return whether a sweep must read a sidecar with this modification time."""
        return not now < modified <= now + self._image_seconds + MAX_AHEAD_SECONDS

    def create(self, image_id: str, sidecar: Sidecar) -> None:
        """Write the first sidecar of a picture that is not published yet."""
        self._write(self._folder.path_of(image_id, ".json"), sidecar)

    def replace(self, image_id: str, sidecar: Sidecar) -> None:
        """Replace a sidecar by a changed one."""
        new = self._folder.path_of(image_id, ".new")
        try:
            # Without the sync, a power cut could leave an empty sidecar.
            self._write(new, sidecar, sync=True)
            os.rename(new, self._folder.path_of(image_id, ".json"))
        except OSError as error:
            unlink_if_there(new)
            if not is_no_room(error):
                raise
            self._write_into_slot(image_id, sidecar)

    def _write(self, path: str, sidecar: Sidecar, *, sync: bool = False) -> None:
        with open(path, "wb", opener=private_opener) as file:
            file.write(_to_json(sidecar).ljust(2 * _SLOT_BYTES))
            file.flush()
            _set_due(file.fileno(), sidecar)
            if sync:
                os.fsync(file.fileno())

    def _write_into_slot(self, image_id: str, sidecar: Sidecar) -> None:
        with open(self._folder.path_of(image_id, ".json"), "r+b", buffering=0) as file:
            version, _, slot = _current_text(content := file.read())
            record = b"%d %s" % (version + 1, _to_json(sidecar))
            record = b"%08x %s" % (zlib.crc32(record), record)
            # A text without a version starts in slot 0, and the record goes into slot 1. So the text must end in slot
            # 0.
            if len(record) > _SLOT_BYTES or not (version or _has_json(content[:_SLOT_BYTES])):
                raise OSError(errno.ENOSPC, "the sidecar is too long to be changed without another file")
            os.pwrite(file.fileno(), record.ljust(_SLOT_BYTES), (1 - slot) * _SLOT_BYTES)
            _set_due(file.fileno(), sidecar)
            os.fsync(file.fileno())


def move_back(picture: BinaryIO, sidecar: Sidecar, seconds: int) -> Sidecar:
    """Move a picture's times back, and return the changed sidecar, which the caller must write."""
    moved = {name: sidecar[name] - seconds for name in ("timestamp", "expires", "claim_until") if name in sidecar}
    os.utime(picture.fileno(), (moved["timestamp"], moved["timestamp"]))
    return sidecar | moved


def _set_due(descriptor: int, sidecar: Sidecar) -> None:
    due = 0 if sidecar.get("sessions_to_end") else int(sidecar["expires"])
    os.utime(descriptor, (due, due))


def _current_text(content: bytes) -> tuple[int, bytes, int]:
    """Return the version, the JSON text and the slot of the current sidecar.

    A record in a slot is a CRC-32, a version and the text. The CRC-32 covers the version and the text. A file without a
    valid record has only the text, and version 0.
    """
    newest = (0, content, 0)
    for slot in (0, 1):
        checksum, _, record = content[slot * _SLOT_BYTES :][:_SLOT_BYTES].rstrip(b" ").partition(b" ")
        if checksum == b"%08x" % zlib.crc32(record):
            version, _, text = record.partition(b" ")
            newest = max(newest, (int(version), text, slot))
    return newest


def _from_json(text: bytes) -> Sidecar:
    # After the text, the file has blanks, or a record that was not completely written.
    sidecar: Sidecar = json.JSONDecoder().raw_decode(text.decode(errors="replace").lstrip())[0]
    if claim := sidecar.pop("claim", None):
        sidecar |= {"claim_token": claim["token"], "claim_until": claim["until"]}
    return sidecar


def _has_json(text: bytes) -> bool:
    try:
        return bool(_from_json(text))
    except _INVALID:
        return False


def _to_json(sidecar: Sidecar) -> bytes:
    written = {name: value for name, value in sidecar.items() if not name.startswith("claim_")}
    if "claim_token" in sidecar:
        written["claim"] = {"token": sidecar["claim_token"], "until": sidecar["claim_until"]}
    return json.dumps(written).encode()

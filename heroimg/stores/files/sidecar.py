"""The sidecar of a picture: `<id>.json`, a JSON object with the fields that heroimg/stores/image.py declares.

Here a sidecar is a dict of those fields by name. In the file the claim is an object of its own: `claim_token` and
`claim_until` are written as `{"claim": {"token": ..., "until": ...}}`. A sidecar that was written by hand needs no more
than `mimetype` and `timestamp`; without `expires` it expires HEROIMG_IMAGE_SECONDS after its timestamp.

A change is written to `<id>.new`, synced, and renamed over the sidecar. The modification time of a sidecar is the
instant at which its picture expires, so that a sweep reads only the sidecars that are due. If sessions must be ended it
is the instant at which the picture was stored, so that every sweep reads it.
"""

from __future__ import annotations

import json
import os
from typing import Any

from heroimg.errors import ImageNotFound
from heroimg.stores.files.disk import private_opener, unlink_if_there
from heroimg.stores.files.folder import Folder
from heroimg.stores.image import StoredImage

Sidecar = dict[str, Any]

_INVALID = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class Sidecars:
    """The sidecars in a folder. Callers that change one hold the lock on its picture."""

    def __init__(self, folder: Folder, image_seconds: int) -> None:
        self._folder = folder
        self._image_seconds = image_seconds

    def read(self, image_id: str, now: int) -> tuple[StoredImage, Sidecar]:
        """Read a picture's sidecar, and check that the picture is there and has the size that it was kept with.

        A power cut can cut a picture short that was never pinned.

        :raises ImageNotFound: there is no such picture, or not all of it; one that has expired is returned.
        """
        try:
            with open(self._folder.path_of(image_id, ".json"), "rb", buffering=0) as file:
                sidecar = _from_json(file.read())
            size = os.stat(self._folder.path_of(image_id)).st_size
            sidecar.setdefault("expires", sidecar["timestamp"] + self._image_seconds)
            if sidecar.setdefault("size", size) != size:
                raise ImageNotFound
            return StoredImage.from_fields(image_id, sidecar, now), sidecar
        except (FileNotFoundError, *_INVALID) as error:
            raise ImageNotFound from error

    def read_current(self, image_id: str, now: int) -> tuple[StoredImage, Sidecar]:
        """Read a picture whose time is not over.

        :raises ImageNotFound: its time is over, or there is no such picture, or not all of it.
        """
        image, sidecar = self.read(image_id, now)
        if image.expires <= now:
            raise ImageNotFound
        return image, sidecar

    def create(self, image_id: str, sidecar: Sidecar) -> None:
        """Write the first sidecar of a picture that is not published yet."""
        self._write(self._folder.path_of(image_id, ".json"), sidecar)

    def replace(self, image_id: str, sidecar: Sidecar) -> None:
        """Put a changed sidecar in the place of the last one."""
        new = self._folder.path_of(image_id, ".new")
        try:
            # Otherwise a power cut could put an empty sidecar in the place of one that was on stable storage.
            self._write(new, sidecar, sync=True)
            os.rename(new, self._folder.path_of(image_id, ".json"))
        except OSError:
            unlink_if_there(new)
            raise

    def remove(self, image_id: str) -> None:
        """Remove the sidecar of a picture that is not there."""
        for suffix in (".json", ".new"):
            unlink_if_there(self._folder.path_of(image_id, suffix))

    def _write(self, path: str, sidecar: Sidecar, *, sync: bool = False) -> None:
        with open(path, "wb", opener=private_opener) as file:
            file.write(_to_json(sidecar))
            file.flush()
            due = int(sidecar["timestamp" if sidecar.get("sessions_to_end") else "expires"])
            os.utime(file.fileno(), (due, due))
            if sync:
                os.fsync(file.fileno())


def _from_json(text: bytes) -> Sidecar:
    sidecar: Sidecar = json.loads(text)
    if claim := sidecar.pop("claim", None):
        sidecar |= {"claim_token": claim["token"], "claim_until": claim["until"]}
    return sidecar


def _to_json(sidecar: Sidecar) -> bytes:
    written = {name: value for name, value in sidecar.items() if not name.startswith("claim_")}
    if "claim_token" in sidecar:
        written["claim"] = {"token": sidecar["claim_token"], "until": sidecar["claim_until"]}
    return json.dumps(written).encode()

"""Checks of the folder of pictures, for `flask --app wsgi check`. They are stricter than the checks at start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress

from heroimg.stores.files.folder import Folder
from heroimg.stores.findings import Finding, fault, ok, warning
from heroimg.stores.image import is_image_id

_SUBJECT = "folder"


def check_folder(folder: Folder) -> Iterator[Finding]:
    """Check the owner of the folder, the modes of its files, renaming, locking, and the room that is left."""
    yield from _check_owner(folder.name)
    yield from _check_names_and_locks(folder)
    yield from _check_room(folder)


def _check_owner(name: str) -> Iterator[Finding]:
    owner, user = os.stat(name).st_uid, os.geteuid()
    if owner != user:
        yield fault(
            _SUBJECT,
            f"{name} belongs to uid {owner}, and this command runs as uid {user}: run it as the user that runs "
            f"heroimg, or make the folder that user's, for example by `chown -R heroimg: {name}`",
        )
    readable = 0
    with os.scandir(name) as entries:
        for entry in filter(lambda entry: is_image_id(entry.name[:32]), entries):
            with suppress(FileNotFoundError):
                readable += bool(entry.stat(follow_symlinks=False).st_mode & 0o077)
    if readable:
        yield warning(
            _SUBJECT,
            f"{readable} files in {name} are open to other users: `find {name} -type f -exec chmod 600 {{}} +`",
        )
    if owner == user and not readable:
        yield ok(_SUBJECT, f"{name} and its files belong to uid {user} alone")


def _check_names_and_locks(folder: Folder) -> Iterator[Finding]:
    folder.check()
    yield ok(_SUBJECT, "a lock on a file there keeps other processes out")
    try:
        with closing(folder.open_part()) as part:
            part.publish()
            folder.unlink(part.id)
    except OSError as error:
        yield fault(
            _SUBJECT,
            f"a file in {folder.name} cannot be renamed ({error.strerror}): set HEROIMG_UPLOAD_DIR to a folder on one "
            "local disk, such as /var/lib/heroimg/uploads",
        )
    else:
        yield ok(_SUBJECT, "a file can be renamed there")


def _check_room(folder: Folder) -> Iterator[Finding]:
    room = folder.room()
    for name, free, least in (
        ("bytes", room.bytes, folder.min_free_bytes),
        ("inodes", room.inodes, folder.min_free_inodes),
    ):
        if free is None:
            yield ok(_SUBJECT, f"its file system does not limit {name}")
        elif free < 2 * least:
            yield warning(
                _SUBJECT,
                f"{folder.name} has only {free:,} {name} free, and uploads are refused below {least:,}: free some, or "
                "set HEROIMG_UPLOAD_DIR to a folder on a larger disk, such as /var/lib/heroimg/uploads",
            )
        else:
            yield ok(_SUBJECT, f"{free:,} {name} are free")

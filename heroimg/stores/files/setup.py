"""Checks of the folder of pictures, for the command `check`. They are stricter than the checks at start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress

from heroimg.findings import Finding, check_owner, fault, ok, warning
from heroimg.stores.files.folder import Folder
from heroimg.stores.image import is_image_id

_SUBJECT = "folder"

# `_check_lock` runs this program in a second process. NFS locks only files that are open for writing.
_TRY_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as part:
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("refused")
    else:
        print("locked")
"""


def check_folder(folder: Folder) -> Iterator[Finding]:
    """Check the owner of the folder, the modes of its files, renaming, locking, and the room that is left."""
    yield from _check_owner(folder.name)
    yield from _check_names_and_locks(folder)
    yield from _check_room(folder)


def _check_owner(name: str) -> Iterator[Finding]:
    wrong = check_owner(_SUBJECT, name)
    if wrong:
        yield wrong
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
    if not wrong and not readable:
        yield ok(_SUBJECT, f"{name} and its files belong to uid {os.geteuid()} alone")


def _check_names_and_locks(folder: Folder) -> Iterator[Finding]:
    folder.check()
    try:
        with closing(folder.open_part()) as part:
            yield _check_lock(folder, part.id)
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


def _check_lock(folder: Folder, part_id: str) -> Finding:
    """Let a second process try to lock a `.part` file that this process has locked."""
    command = [sys.executable, "-I", "-c", _TRY_LOCK, folder.path_of(part_id, ".part")]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        result = tried.stdout.strip() or (tried.stderr.splitlines() or [f"it ended with {tried.returncode}"])[-1]
    except OSError as error:  # for example, this host lets the user run only one process
        result = f"it cannot start: {error.strerror}"
    if result == "refused":
        return ok(_SUBJECT, "a lock there keeps a second process out")
    if result == "locked":
        return fault(
            _SUBJECT,
            f"a lock (flock) in {folder.name} does not keep a second process out, so two customers could get one "
            "picture: set HEROIMG_UPLOAD_DIR to a folder on a local disk, such as /var/lib/heroimg/uploads",
        )
    return warning(
        _SUBJECT,
        f"no second process could try a lock in {folder.name} ({result}): let this user run two processes, and check "
        "again; `ulimit -u` shows the limit",
    )


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

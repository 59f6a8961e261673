"""Whether a folder may hold pictures: it must be empty, or hold only files of this store.

HEROIMG_UPLOAD_DIR may name another program's folder by mistake. Its mode would then become 0700, and a sweep would
remove files with names like ours; caches have such names. Our files are private (mode 0600). A copied picture may have
lost its mode; its sidecar shows that it is ours.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress

_OUR_NAME = re.compile(r"([0-9a-f]{32})(|\.part|\.json|\.new)")

# These may be there too: placeholders, rules for a web server, and entries that file systems create.
_HARMLESS = re.compile(r"\.(ht\w+|git\w+|keep|placeholder|nfs\w+)|lost\+found")


def refuse_foreign(folder: str) -> None:
    """Check that a folder holds nothing but pictures of ours.

    :raises OSError: it holds something else; the message names it.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _HARMLESS.fullmatch(entry.name) and not _is_ours(folder, entry):
                raise OSError(errno.EEXIST, f"it holds other files, such as {entry.name}")


def _is_ours(folder: str, entry: os.DirEntry[str]) -> bool:
    name = _OUR_NAME.fullmatch(entry.name)
    try:
        if not name or not entry.is_file(follow_symlinks=False):
            return False
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # another process of ours has removed it since
        return True
    is_empty_leftover = name[2] != "" and status.st_size == 0
    return not status.st_mode & 0o077 or is_empty_leftover or _has_sidecar(f"{folder}/{name[1]}.json")


def _has_sidecar(path: str) -> bool:
    with suppress(FileNotFoundError), open(path, "rb") as file:
        start = file.read(4096)
        return b'"mimetype"' in start and b'"timestamp"' in start
    return False

"""Whether a folder may hold pictures: it must hold only files of this store, and harmless files.

HEROIMG_UPLOAD_DIR may name another program's folder by mistake. Then the folder's mode would become 0700, and a sweep
would remove files with names like ours. Some caches use such names, and our mode, 0600. So we also check the contents.
The check accepts what a power cut may leave: a picture without a sidecar, and empty or truncated files. It accepts a
picture with another mode if the picture's sidecar is there, because copying a folder may change modes.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import suppress

from heroimg.logs import redacted

_OUR_NAME = re.compile(r"([0-9a-f]{32})(|\.part|\.json|\.new)")

# The first bytes of the formats that heroimg accepts (pictures/formats.py).
_PICTURES_BEGIN = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")

_SIDECARS_BEGIN = b'{"mimetype": "image/'
_START_BYTES = 4096  # enough for a whole sidecar

# Other harmless entries: placeholders, rules for a web server, and entries that file systems create.
_HARMLESS = re.compile(r"\.(ht\w+|git\w+|keep|placeholder|nfs\w+)|lost\+found")


def refuse_foreign(folder: str) -> None:
    """Check that a folder holds nothing but pictures of ours.

    :raises OSError: it holds something else; the message names it.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _HARMLESS.fullmatch(entry.name) and not _is_ours(folder, entry):
                raise OSError(errno.EEXIST, f"it holds other files, such as {redacted(entry.name)}")


def _is_ours(folder: str, entry: os.DirEntry[str]) -> bool:
    name, is_private = _OUR_NAME.fullmatch(entry.name), False
    try:
        if not name or not entry.is_file(follow_symlinks=False):
            return False
        suffix, picture, sidecar = name[2], f"{folder}/{name[1]}", f"{folder}/{name[1]}.json"
        status = entry.stat(follow_symlinks=False)
        is_private = not status.st_mode & 0o077
        if suffix == ".part":
            is_ours = is_private or status.st_size == 0
        elif suffix:
            is_ours = _may_be_sidecar(_start_of(entry.path)) or (is_private and _begins(picture, _may_be_picture))
        else:  # it is enough that the sidecar exists, because `refuse_foreign` checks the sidecar itself
            is_ours = is_private and (os.path.lexists(sidecar) or _may_be_picture(_start_of(entry.path)))
    except FileNotFoundError:  # another process of ours has just removed the file
        return True
    except PermissionError:  # for example, the file belongs to root
        return is_private
    return is_ours or _begins(sidecar, _is_sidecar)


def _begins(path: str, is_right: Callable[[bytes], bool]) -> bool:
    """Return whether the file exists, and its first bytes are right."""
    with suppress(FileNotFoundError):
        return is_right(_start_of(path))
    return False


def _start_of(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(_START_BYTES)


def _may_be_picture(start: bytes) -> bool:
    return any(_begins_like(beginning, start) for beginning in _PICTURES_BEGIN)


def _may_be_sidecar(start: bytes) -> bool:
    return _begins_like(_SIDECARS_BEGIN, start) or _is_sidecar(start)


def _begins_like(beginning: bytes, start: bytes) -> bool:
    """Return whether a file begins with `beginning`, or may have begun with it before a crash damaged the file."""
    return beginning.startswith(start[: len(beginning)]) or not start.strip(b"\0")


def _is_sidecar(start: bytes) -> bool:
    return b'"mimetype"' in start and b'"timestamp"' in start

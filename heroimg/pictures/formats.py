"""The picture formats that heroimg accepts, and how it recognises and checks them.

`FORMATS` is the only list of them. A picture's format depends on its first bytes, never on its file name. Pictures are
never re-encoded: readers get the bytes that were uploaded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from heroimg.errors import HeroimgError, ImageDamaged, NotAPicture
from heroimg.pictures import jpeg, png


@dataclass(frozen=True)
class Format:
    """A picture format.

    :param signature: the first bytes of every file of this format.
    :param extension: the usual file name extension, without its dot.
    :param check: takes a file's bytes, and whether to decode them or to look at the header alone. It raises any
        exception for a damaged file, and a HeroimgError for a file that takes too much to decode.
    """

    signature: bytes
    media_type: str
    extension: str
    check: Callable[[bytes, bool], None]


FORMATS = (
    Format(b"\x89PNG\r\n\x1a\n", "image/png", "png", png.check),
    Format(b"\xff\xd8\xff", "image/jpeg", "jpg", jpeg.check),
)

# The headers of most pictures are shorter than this.
_HEADER_BYTES = 128 * 1024

# Each process checks one picture at a time: decoding keeps a core busy anyway, and this bounds a worker's memory.
_one_at_a_time = threading.Lock()


def media_type_of(read: Callable[[int], bytes], *, decode: bool = True) -> str:
    """Find the picture's media type from its bytes, and check that the picture is complete.

    :param read: returns that many of the first bytes, or all of them for -1. It is called only once no other picture is
        being checked, so that waiting pictures take no memory.
    :param decode: False looks at the header alone.
    :raises NotAPicture: the bytes are in no format of FORMATS.
    :raises TooManyPixels: raised before anything is decoded, as is ImageTooComplex.
    :raises ImageDamaged: the picture does not decode.
    """
    with _one_at_a_time:
        if not decode:
            with suppress(ImageDamaged):  # its header may be longer than most
                return _check(read(_HEADER_BYTES), decode)
        return _check(read(-1), decode)


def extension_of(media_type: str) -> str:
    """Give the usual file name extension, without its dot."""
    return next((known.extension for known in FORMATS if known.media_type == media_type), "bin")


def _check(data: bytes, decode: bool) -> str:
    for candidate in FORMATS:
        if data.startswith(candidate.signature):
            try:
                candidate.check(data, decode)
            except HeroimgError:
                raise
            except Exception as error:  # parsers raise what they stumble over: SyntaxError, struct.error, ...
                raise ImageDamaged from error
            return candidate.media_type
    raise NotAPicture

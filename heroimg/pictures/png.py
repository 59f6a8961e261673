"""Checks that a PNG is complete: every chunk's checksum must be right, up to the end chunk."""

from __future__ import annotations

import struct
from zlib import crc32

from heroimg.errors import ImageDamaged
from heroimg.pictures.limits import refuse_size

# The bit depths of each colour type. https://www.w3.org/TR/png-3/#table111
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE = 3


def check(data: bytes, decode: bool) -> None:
    """Check the header, and every chunk if `decode` is true.

    :raises ImageDamaged: also raised as struct.error.
    :raises TooManyPixels: the picture is too large.
    """
    length, kind, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if (length, kind) != (13, b"IHDR") or depth not in _DEPTHS.get(colour, ()):
        raise ImageDamaged
    refuse_size(width, height)
    if decode:
        kinds = _whole_chunks(data)
        if b"IDAT" not in kinds or (colour == _PALETTE and b"PLTE" not in kinds):
            raise ImageDamaged


def _whole_chunks(data: bytes) -> set[bytes]:
    """List the kinds of a PNG's chunks after verifying the checksum of each.

    :raises ImageDamaged: a checksum is wrong.
    :raises struct.error: the end chunk is missing.
    """
    view, position, kinds = memoryview(data), 8, set[bytes]()
    while b"IEND" not in kinds:
        length, kind = struct.unpack_from(">I4s", data, position)
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        if crc32(view[position + 4 : position + 8 + length]) != checksum:
            raise ImageDamaged
        kinds.add(kind)
        position += 12 + length
    return kinds

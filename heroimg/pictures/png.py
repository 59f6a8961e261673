"""Checks that a PNG is complete: every row must be there, with a valid filter type.

The rows are inflated in pieces and not kept. Nothing after the last row matters. https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import chain

from heroimg.errors import ImageDamaged, ImageTooComplex
from heroimg.pictures.limits import refuse_size

# Section 11.2.1: for each colour type, the samples of a pixel, and the bit depths.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE = 3
_PALETTE_BYTES = range(3, 3 * 256 + 1, 3)

# Section 9.2: the filter types. Section 8.1: for each pass of an interlaced picture, the first x and y, and the steps.
_FILTERS = bytes(range(5))
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

# libpng, which browsers use, refuses longer sides.
_MAX_SIDE = 1_000_000

# Encoders write image data in chunks of 8 KB or more. Reading a chunk takes about a microsecond.
_MAX_CHUNKS = 100_000

# Each time its output is full, zlib copies the rest of its input. So zlib gets small pieces of input.
_INPUT_BYTES = 16 * 1024
_OUTPUT_BYTES = 256 * 1024


def check(data: bytes, decode: bool) -> None:
    """Check the header, and every row if `decode` is true.

    :raises ImageDamaged, StopIteration, ValueError, struct.error, zlib.error: the caller turns these into ImageDamaged.
    :raises TooManyPixels: the picture is too large.
    :raises ImageTooComplex: the picture has too many chunks, or a side that is too long.
    """
    chunks = _chunks(data)
    kind, header = next(chunks)
    if kind != b"IHDR" or len(header) != 13:
        raise ImageDamaged
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise ImageDamaged
    refuse_size(width, height)
    if max(width, height) > _MAX_SIDE:
        raise ImageTooComplex(f"The picture is {width} x {height} pixels; the limit for a side is {_MAX_SIDE:,}.")
    if not decode:
        return
    passes = _ADAM7 if interlace else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes if x < width and y < height]
    rows = [(1 + -(-across * depth * _SAMPLES[colour] // 8), down) for across, down in sizes]
    contents = _image_data(chunks, needs_palette=colour == _PALETTE)
    _check_rows(_inflated(_pieces(contents)), rows)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Read the kind and the content of each chunk, up to the first broken chunk.

    The last content may be cut short. Only critical chunks need a valid checksum. Their kinds start with a capital.

    :raises ImageTooComplex: there are too many chunks.
    """
    view, position, count = memoryview(data), 8, 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if length >= 2**31 or not kind.isalpha():
            return
        if kind[:1].isupper() and end + 4 <= len(data):
            (checksum,) = struct.unpack_from(">I", data, end)
            if zlib.crc32(view[position + 4 : end]) != checksum:
                return
        yield kind, view[position + 8 : end]
        position, count = end + 4, count + 1
        if count == _MAX_CHUNKS:
            raise ImageTooComplex(f"This PNG has more than {_MAX_CHUNKS:,} chunks. Please save it again.")


def _image_data(chunks: Iterator[tuple[bytes, memoryview]], *, needs_palette: bool) -> Iterator[memoryview]:
    """Give the contents of the IDAT chunks, which must be consecutive.

    :raises ImageDamaged: the palette is missing, or a critical chunk is out of place.
    """
    has_palette = has_begun = False
    for kind, content in chunks:
        if kind == b"IDAT":
            if needs_palette and not has_palette:
                raise ImageDamaged
            has_begun = True
            yield content
        elif has_begun:
            return
        elif kind == b"PLTE" and not has_palette and len(content) in _PALETTE_BYTES:
            has_palette = True
        elif kind[:1].isupper():
            raise ImageDamaged


def _pieces(contents: Iterator[memoryview]) -> Iterator[bytearray]:
    """Join and split the contents into pieces of about _INPUT_BYTES."""
    piece = bytearray()
    for content in contents:
        for position in range(0, len(content), _INPUT_BYTES):
            piece += content[position : position + _INPUT_BYTES]
            if len(piece) >= _INPUT_BYTES:
                yield piece
                piece = bytearray()
    yield piece


def _inflated(pieces: Iterator[bytearray]) -> Iterator[bytes]:
    """Inflate zlib's format, RFC 1950. The checksum at the end is not read, because most browsers ignore it.

    :raises ImageDamaged: the header of the format is wrong.
    :raises ValueError: the header is too short.
    :raises zlib.error: the data are wrong.
    """
    first = next(pieces)
    method, flags = first[:2]
    if method & 15 != 8 or method >> 4 > 7 or flags & 32 or (method * 256 + flags) % 31:
        raise ImageDamaged
    inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    for piece in chain([first[2:]], pieces):
        left: bytes | bytearray = piece
        while left:
            yield inflate.decompress(left, _OUTPUT_BYTES)
            left = inflate.unconsumed_tail
    yield inflate.flush()


def _check_rows(pieces: Iterator[bytes], passes: list[tuple[int, int]]) -> None:
    """Count the rows, and check that each begins with a filter type.

    :param passes: for each pass, the number of bytes in a row (with its filter type), and the number of rows.
    :raises ImageDamaged: a filter type is not valid.
    :raises StopIteration: rows are missing.
    """
    piece = b""
    for stride, rows in passes:
        next_row, left = 0, stride * rows
        while left:
            while not piece:
                piece = next(pieces)
            here, piece = piece[:left], piece[left:]
            if here[next_row::stride].translate(None, _FILTERS):
                raise ImageDamaged
            next_row = (next_row - len(here)) % stride  # counted from the start of the next piece
            left -= len(here)

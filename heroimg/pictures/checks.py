"""What counts as a picture: a PNG or a JPEG that decodes, told by its bytes and never by its name.

As little is decoded as proves a picture whole: of a JPEG the whole entropy-coded stream at 1/8 scale, of a PNG the
checksums of all chunks. Nothing is ever re-encoded; the bytes handed back are the bytes that came.

Headers are read here before any decoder sees the picture, so that what it will cost is known. Pillow's JPEG class is
used directly, not `Image.open`: that would call a JPEG with several pictures inside, as phones write them, an MPO.
"""

from __future__ import annotations

import math
import re
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from zlib import crc32

from PIL.JpegImagePlugin import JpegImageFile

from heroimg.errors import HeroimgError, ImageDamaged, ImageTooComplex, NotAPicture, TooManyPixels

MAX_PIXELS = 50_000_000

# A JPEG in several scans (every progressive one) is decoded by way of all its coefficients, two bytes each: 150 MB for
# 50 million pixels with colours at half resolution, as is usual, and twice that with colours in full. A worker has 300.
MAX_COEFFICIENT_BYTES = 160_000_000

# Each scan goes over all coefficients again, in up to 55 ms for 150 MB. Encoders write about ten scans.
MAX_SCANNED_BYTES = 4_000_000_000

# A photograph has about ten segments before its first scan, and no bytes between them. Pillow reads them in Python.
_MAX_SEGMENTS = 1000
_MAX_BYTES_BETWEEN_SEGMENTS = 4096

# As much as the headers of most pictures take: the rest is read only where the picture is to be decoded.
_HEADER_BYTES = 128 * 1024

# Baseline, extended sequential and progressive, Huffman-coded: the kinds that browsers show. ITU-T T.81, table B.1.
_FRAMES = (0xC0, 0xC1, 0xC2)
_PROGRESSIVE = 0xC2
_START_OF_SCAN = 0xDA

# The last 0xFF before the marker alone: with `\xff+` a search through nothing but fill bytes would take hours.
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")

# The bit depths of each colour type. https://www.w3.org/TR/png-3/#table111
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_PALETTE = 3

_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg"}

# One picture at a time in each process: decoding keeps a core busy anyway, and memory for it is needed once.
_one_at_a_time = threading.Lock()


def media_type_of(read: Callable[[int], bytes], *, decode: bool = True) -> str:
    """Find the type in the bytes, and find out whether they are a whole picture.

    :param read: gives so many of the first bytes, or all for -1, once it is this picture's turn: until then it takes
        no memory.
    :param decode: False looks at the header alone.
    :raises NotAPicture: neither PNG nor JPEG.
    :raises TooManyPixels: refused before anything is decoded, as is ImageTooComplex.
    :raises ImageDamaged: it does not decode.
    """
    with _one_at_a_time:
        if not decode:
            with suppress(ImageDamaged):  # it may have longer headers than most
                return _media_type_of(read(_HEADER_BYTES), decode)
        return _media_type_of(read(-1), decode)


def extension_of(media_type: str) -> str:
    """Give the usual file name extension, without its dot."""
    return _EXTENSIONS.get(media_type, "bin")


def _media_type_of(data: bytes, decode: bool) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        check, media_type = _check_png, "image/png"
    elif data.startswith(b"\xff\xd8\xff"):
        check, media_type = _check_jpeg, "image/jpeg"
    else:
        raise NotAPicture
    try:
        check(data, decode)
    except HeroimgError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever they stumble over: SyntaxError, struct.error, ...
        raise ImageDamaged from error
    return media_type


def _check_png(data: bytes, decode: bool) -> None:
    length, kind, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, 8)
    if (length, kind) != (13, b"IHDR") or depth not in _PNG_DEPTHS.get(colour, ()):
        raise ImageDamaged
    _refuse_size(width, height)
    if decode:
        kinds = _whole_chunks(data)
        if b"IDAT" not in kinds or (colour == _PNG_PALETTE and b"PLTE" not in kinds):
            raise ImageDamaged


def _whole_chunks(data: bytes) -> set[bytes]:
    """List the kinds of a PNG's chunks, having verified every chunk's checksum up to the end's.

    :raises ImageDamaged: a checksum is wrong.
    :raises struct.error: the end is missing.
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


def _check_jpeg(data: bytes, decode: bool) -> None:
    header = _read_jpeg_header(data)
    _refuse_size(header.width, header.height)
    if not decode:
        return
    if header.is_in_several_scans:
        _refuse_costly_scans(data, header)
    jpeg = JpegImageFile(BytesIO(data))
    jpeg.draft("L", (max(1, header.width // 8), max(1, header.height // 8)))
    jpeg.load()
    # A decoder that has all its pixels does not miss the end's marker, which cannot occur within a scan. It mostly ends
    # the file: looking for it from the front took a tenth of the decoder's time.
    if data.rfind(b"\xff\xd9", header.end) < 0:
        raise ImageDamaged


@dataclass(frozen=True)
class _JpegHeader:
    """What comes before the first scan's data.

    :param sampling: how many samples each component has, horizontally and vertically, relative to the others.
    :param end: where the first scan's data begin.
    """

    width: int
    height: int
    sampling: list[tuple[int, int]]
    is_in_several_scans: bool
    end: int

    @property
    def coefficient_bytes(self) -> int:
        """Count whole units of blocks, as decoders do: of a picture a few pixels wide these are mostly padding."""
        across = math.ceil(self.width / (8 * max(h for h, _ in self.sampling)))
        down = math.ceil(self.height / (8 * max(v for _, v in self.sampling)))
        return 2 * 64 * across * down * sum(h * v for h, v in self.sampling)


def _read_jpeg_header(data: bytes) -> _JpegHeader:
    """Read a JPEG's segments up to its first scan. ITU-T T.81, annex B.

    :raises ImageTooComplex: there are too many.
    :raises ImageDamaged: there is no first scan.
    :raises struct.error: there is no frame of a kind that browsers show.
    """
    position, between, frame = 2, 0, b""
    for _ in range(_MAX_SEGMENTS):
        found = _JPEG_MARKER.search(data, position)
        if not found:
            raise ImageDamaged
        between += found.end() - 2 - position
        if between > _MAX_BYTES_BETWEEN_SEGMENTS:
            break
        marker, length = data[found.end() - 1], int.from_bytes(data[found.end() : found.end() + 2], "big")
        segment = data[found.end() + 2 : found.end() + length]
        position = found.end() + length
        if marker in _FRAMES:
            frame, is_progressive = segment, marker == _PROGRESSIVE
        elif marker == _START_OF_SCAN:
            height, width, components = struct.unpack_from(">xHHB", frame)
            sampling = [(frame[i] >> 4, frame[i] & 15) for i in range(7, 7 + 3 * components, 3)]
            return _JpegHeader(width, height, sampling, is_progressive or segment[0] < components, position)
    raise ImageTooComplex("This JPEG has too much before its picture. Please save it again.")


def _refuse_size(width: int, height: int) -> None:
    if not width or not height:
        raise ImageDamaged
    if width * height > MAX_PIXELS:
        raise TooManyPixels(
            f"The picture has {width} x {height} = {width * height:,} pixels; the limit is {MAX_PIXELS:,}."
        )


def _refuse_costly_scans(data: bytes, header: _JpegHeader) -> None:
    """Bound the memory and the time of a picture that is decoded by way of all its coefficients."""
    needed = header.coefficient_bytes
    if needed > MAX_COEFFICIENT_BYTES:
        raise ImageTooComplex(
            f"This progressive JPEG takes {needed / 1e6:.0f} MB to decode; the limit is "
            f"{MAX_COEFFICIENT_BYTES / 1e6:.0f} MB. Please save it smaller, or as a standard (baseline) JPEG."
        )
    scans, most = 1 + data.count(b"\xff\xda", header.end), MAX_SCANNED_BYTES // needed
    if scans > most:
        raise ImageTooComplex(
            f"This JPEG of {header.width} x {header.height} pixels has {scans} scans; the limit is {most}. "
            "Please save it as a standard (baseline) JPEG."
        )

"""Checks that a JPEG is complete, by decoding its whole entropy-coded stream at 1/8 scale.

The header is read here before Pillow decodes anything, so that the cost is known. Pillow's JPEG class is used directly:
`Image.open` would treat a JPEG with several pictures inside, as phones write them, as an MPO.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from io import BytesIO

from PIL.JpegImagePlugin import JpegImageFile

from heroimg.errors import ImageDamaged, ImageTooComplex
from heroimg.pictures.limits import refuse_size

# A JPEG in several scans (every progressive one) is decoded by way of all its coefficients, two bytes each: 150 MB for
# 50 million pixels with colours at half resolution, as is usual, and twice that with colours in full. A worker has 300.
MAX_COEFFICIENT_BYTES = 160_000_000

# Each scan goes over all coefficients again, in up to 55 ms for 150 MB. Encoders write about ten scans.
MAX_SCANNED_BYTES = 4_000_000_000

# A photograph has about ten segments before its first scan, and no bytes between them. Pillow reads them in Python.
_MAX_SEGMENTS = 1000
_MAX_BYTES_BETWEEN_SEGMENTS = 4096

# Baseline, extended sequential and progressive, Huffman-coded: the kinds that browsers show. ITU-T T.81, table B.1.
_FRAMES = (0xC0, 0xC1, 0xC2)
_PROGRESSIVE = 0xC2
_START_OF_SCAN = 0xDA

# The last 0xFF before the marker alone: with `\xff+` a search through nothing but fill bytes would take hours.
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")


def check(data: bytes, decode: bool) -> None:
    """Check the header, and that the picture decodes if `decode` is true.

    :raises ImageDamaged: also raised as any of Pillow's exceptions.
    :raises TooManyPixels: the picture is too large.
    :raises ImageTooComplex: the picture takes too much to decode.
    """
    header = _read_header(data)
    refuse_size(header.width, header.height)
    if not decode:
        return
    if header.is_in_several_scans:
        _refuse_costly_scans(data, header)
    jpeg = JpegImageFile(BytesIO(data))
    jpeg.draft("L", (max(1, header.width // 8), max(1, header.height // 8)))
    jpeg.load()
    # Once it has all pixels, the decoder does not miss the end marker, which cannot occur within a scan. It is mostly
    # at the end of the file: a search from the front took a tenth of the decoder's time.
    if data.rfind(b"\xff\xd9", header.end) < 0:
        raise ImageDamaged


@dataclass(frozen=True)
class _Header:
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


def _read_header(data: bytes) -> _Header:
    """Read a JPEG's segments up to its first scan. ITU-T T.81, annex B.

    :raises ImageTooComplex: there are too many.
    :raises ImageDamaged: there is no first scan.
    :raises struct.error: there is no frame of a kind that browsers show.
    """
    position, between, frame = 2, 0, b""
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, position)
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
            return _Header(width, height, sampling, is_progressive or segment[0] < components, position)
    raise ImageTooComplex("This JPEG has too much before its picture. Please save it again.")


def _refuse_costly_scans(data: bytes, header: _Header) -> None:
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

"""Checks that a JPEG is complete: libjpeg-turbo must be able to decode all of its blocks.

The first segments are read before decoding, because they tell how much memory decoding takes. The decoder gets no
segments with metadata, so metadata cannot break it.

The decoder gets the entropy-coded data without the marker after the data. So if blocks are missing, the decoder asks
for more data. With the marker, the decoder would only warn, and Pillow drops warnings.
"""

from __future__ import annotations

import re
from itertools import count

from PIL import Image

from heroimg.errors import ImageDamaged, ImageTooComplex
from heroimg.pictures.jpeg_segments import END, RESTART_INTERVAL, Frame, Scan, Segment, read_segments
from heroimg.pictures.limits import MAX_PIXELS, refuse_size

# For a JPEG of several scans, such as a progressive JPEG, the decoder keeps all coefficients in memory, two bytes each.
# With the usual half-resolution colour, a pixel has 1.5 coefficients, so 3 bytes, and 0.1 for padding at the edges.
MAX_COEFFICIENT_BYTES = MAX_PIXELS * 31 // 10

# For each scan, the decoder reads all coefficients again. Encoders write about ten scans.
MAX_SCANNED_BYTES = 25 * MAX_COEFFICIENT_BYTES

# A scan counts as at least this many bytes, because even a tiny picture's scan takes some time.
_LEAST_SCANNED_BYTES = 10_000_000

# Cameras write about one restart marker for each row of blocks. Each interval between two markers is decoded
# separately. If a scan has more intervals than this, groups of intervals are decoded together. Then heroimg
# detects missing blocks only in the last interval of each group.
_MAX_PIECES = 2000

# APP0 to APP15 and COM, but not APP14, which names the colour space.
_METADATA = {*range(0xE0, 0xF0), 0xFE} - {0xEE}

_RESTART = 0xD0
_ANY_MARKER = re.compile(rb"\xff[\x01-\xfe]")

# libjpeg-turbo reads up to 7 bytes ahead, so each piece of a scan gets 7 bytes of 0xFF as padding. (In a scan, a zero
# byte must follow 0xFF.) With less padding, most whole pictures would be refused. But the decoder can mistake the
# padding for an empty block (in a progressive JPEG, for several empty blocks). Then heroimg overlooks missing blocks.
_PADDING = b"\xff\0" * 7

# Pillow's mode for each number of components. Grey output is enough for a colour picture, because the decoder decodes
# all components anyway.
_MODES = {1: "L", 3: "L", 4: "CMYK"}


def check(data: bytes, decode: bool) -> None:
    """Check the header, and decode the picture if `decode` is true.

    :raises ImageDamaged, IndexError, KeyError, ValueError, struct.error: the caller turns these into ImageDamaged.
    :raises TooManyPixels: the picture is too large.
    :raises ImageTooComplex: the picture takes too much memory or time to decode.
    """
    segments = read_segments(data, 2)
    frame = Frame.read(data, segments)
    scan = Scan.read(data, segments[-1], frame)
    refuse_size(frame.width, frame.height)
    if not decode:
        return
    if frame.is_progressive or len(scan.components) < len(frame.components):
        _refuse_many_coefficients(frame)
    _decode(data, segments, frame)


def _refuse_many_coefficients(frame: Frame) -> None:
    """Bound the memory that a picture of several scans takes."""
    needed = frame.coefficient_bytes
    if needed > MAX_COEFFICIENT_BYTES:
        raise ImageTooComplex(
            f"This JPEG of several scans takes {needed / 1e6:.0f} MB to decode; the limit is "
            f"{MAX_COEFFICIENT_BYTES / 1e6:.0f} MB. Please save it smaller, or as a standard (baseline) JPEG."
        )


def _decode(data: bytes, segments: list[Segment], frame: Frame) -> None:
    """Decode scan after scan until no coefficient is missing, or until the end marker.

    :raises ImageTooComplex: the scans take too long.
    """
    decoder, view, interval = _Decoder(frame), memoryview(data), 0
    missing = {number: set(range(64)) for number, _, _ in frame.components}
    most_scans = MAX_SCANNED_BYTES // max(frame.coefficient_bytes, _LEAST_SCANNED_BYTES)
    decoder.feed(view[:2])
    for number in count(1):
        for segment in segments:
            if segment.marker == RESTART_INTERVAL:
                interval = int.from_bytes(data[segment.end - 2 : segment.end], "big")
            if segment.marker == END:
                # A file may omit coefficients, but not the first coefficient of each component.
                if any(0 in coefficients for coefficients in missing.values()):
                    raise ImageDamaged
                return
            if segment.marker not in _METADATA:
                decoder.feed(view[segment.start : segment.end])
        scan = Scan.read(data, segments[-1], frame)
        if number > most_scans:
            raise ImageTooComplex(
                f"This JPEG of {frame.width} x {frame.height} pixels has more than {most_scans} scans. "
                "Please save it as a standard (baseline) JPEG."
            )
        position = decoder.decode_scan(view, segments[-1].end, frame.units(scan.components), interval)
        for component in scan.components:
            missing[component] -= set(scan.coefficients)
        if not any(missing.values()):
            return
        segments = read_segments(data, position)


class _Decoder:
    """libjpeg-turbo, as Pillow wraps it. Decoding at 1/8 scale saves work, but still reads every byte."""

    def __init__(self, frame: Frame) -> None:
        mode = _MODES[len(frame.components)]
        picture = Image.new(mode, (-(-frame.width // 8), -(-frame.height // 8)))
        self._decoder = Image._getdecoder(mode, "jpeg", (mode, ""), (8, 0))
        self._decoder.setimage(picture.im, (0, 0, *picture.size))

    def feed(self, segment: memoryview | bytes) -> None:
        """Let the decoder read a segment."""
        used, _ = self._decoder.decode(segment)
        if used != len(segment):
            raise ImageDamaged

    def decode_scan(self, data: memoryview, start: int, units: int, interval: int) -> int:
        """Decode a scan's entropy-coded data.

        :param units: how many minimum coded units (MCUs) the scan has.
        :param interval: the number of MCUs between two restart markers; 0 if there are no restart markers.
        :returns: where the data end.
        :raises ImageDamaged: blocks are missing.
        """
        intervals = -(-units // interval) if interval else 1
        at_once = -(-intervals // _MAX_PIECES)
        position = start
        for number in range(1, intervals + 1):
            marker = _ANY_MARKER.search(data, position)
            end = marker.start() if marker else len(data)
            if number == intervals or number % at_once == 0:
                self._decode_piece(data[start:end])
                start = end
            if number < intervals:
                if data[end + 1] != _RESTART + (number - 1) % 8:
                    raise ImageDamaged
                position = end + 2
        return end

    def _decode_piece(self, piece: memoryview) -> None:
        """Decode entropy-coded data up to a marker, or to the end of the file.

        :raises ImageDamaged: blocks are missing.
        """
        used, error = self._decoder.decode(piece)
        if used >= 0:
            used, error = self._decoder.decode(bytes(piece[used:]) + _PADDING)
            if used >= 0:
                # If no block is missing, the decoder looks for a marker, and skips the zero byte that it gets here. If
                # blocks are missing, the decoder does not take the byte.
                self.feed(b"\0")
        if error:
            raise ImageDamaged

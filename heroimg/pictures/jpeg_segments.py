"""Reads a JPEG's segments and headers. The format is ITU-T T.81, annex B."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from heroimg.errors import ImageDamaged, ImageTooComplex

END, SCAN, RESTART_INTERVAL = 0xD9, 0xDA, 0xDD

# Browsers show these kinds of frames (table B.1): baseline, extended sequential and progressive, all Huffman-coded.
_FRAMES = (0xC0, 0xC1, 0xC2)
_PROGRESSIVE = 0xC2

# A photograph has about ten segments before its first scan. If a segment's marker is broken, the whole segment counts
# as bytes between segments. So the limit of these bytes is the size of the largest possible segment.
_MAX_SEGMENTS = 1000
_MAX_BYTES_BETWEEN_SEGMENTS = 2 + 0xFFFF

# A marker is 0xFF and a code. Fill bytes of 0xFF may come before the marker. The pattern does not match fill bytes,
# because `\xff+` would take hours for many of them.
_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")


@dataclass(frozen=True)
class Segment:
    """A marker and the bytes that belong to it.

    :param start: where the marker begins.
    :param end: where the content ends. The content begins after the marker and the length, two bytes each.
    """

    marker: int
    start: int
    end: int


def read_segments(data: bytes, position: int) -> list[Segment]:
    """Read segments up to the next scan's header, the end marker, or the end of the data.

    :raises ImageTooComplex: there are too many segments, or too many bytes between two of them.
    """
    segments: list[Segment] = []
    while match := _MARKER.search(data, position):
        if len(segments) == _MAX_SEGMENTS or match.start() - position > _MAX_BYTES_BETWEEN_SEGMENTS:
            raise ImageTooComplex("This JPEG has too many bytes that are not its picture. Please save it again.")
        length = int.from_bytes(data[match.end() : match.end() + 2], "big")
        position = match.end() + max(length, 2)
        segments.append(Segment(data[match.end() - 1], match.start(), position))
        if segments[-1].marker in (SCAN, END):
            break
    return segments


@dataclass(frozen=True)
class Frame:
    """A frame's header, section B.2.2.

    :param components: each component's number, horizontal sampling factor and vertical sampling factor.
    """

    width: int
    height: int
    components: list[tuple[int, int, int]]
    is_progressive: bool

    @classmethod
    def read(cls, data: bytes, segments: list[Segment]) -> Frame:
        """Read the first frame's header. The decoder refuses a second frame.

        :raises ImageDamaged: there is no frame of a kind that browsers show.
        :raises struct.error, IndexError: the header is too short. The caller turns both into ImageDamaged.
        """
        for segment in segments:
            if segment.marker in _FRAMES:
                content = data[segment.start + 4 : segment.end]
                precision, height, width, count = struct.unpack_from(">BHHB", content)
                if precision != 8:
                    break
                components = [
                    (content[i], content[i + 1] >> 4, content[i + 1] & 15) for i in range(6, 6 + 3 * count, 3)
                ]
                frame = cls(width, height, components, segment.marker == _PROGRESSIVE)
                if any(frame.most_across % h or frame.most_down % v for _, h, v in components):
                    break  # libjpeg-turbo enlarges components by whole numbers only
                return frame
        raise ImageDamaged

    @property
    def most_across(self) -> int:
        return max(h for _, h, _ in self.components)

    @property
    def most_down(self) -> int:
        return max(v for _, _, v in self.components)

    @property
    def coefficient_bytes(self) -> int:
        """The memory for the coefficients of all MCUs, padding included. Narrow pictures are mostly padding."""
        return 2 * 64 * self.units(b"") * sum(h * v for _, h, v in self.components)

    def units(self, numbers: bytes) -> int:
        """Count the minimum coded units (MCUs) in a scan of these components, section A.2.

        In a scan of one component, each block is an MCU, and no block is padding.

        :param numbers: the numbers of these components.
        """
        across, down = 8 * self.most_across, 8 * self.most_down
        width, height = self.width, self.height
        if len(numbers) == 1:
            h, v = next((h, v) for number, h, v in self.components if number == numbers[0])
            width, height = width * h, height * v
        return -(-width // across) * -(-height // down)


@dataclass(frozen=True)
class Scan:
    """A scan's header, section B.2.3.

    :param components: the numbers of the scan's components.
    :param coefficients: which of each block's 64 coefficients the scan completes.
    """

    components: bytes
    coefficients: range

    @classmethod
    def read(cls, data: bytes, segment: Segment, frame: Frame) -> Scan:
        """Read a scan's header.

        :raises ImageDamaged: the segment is no scan's header.
        :raises ValueError, IndexError: the header has a wrong length. The caller turns both into ImageDamaged.
        """
        if segment.marker != SCAN:
            raise ImageDamaged
        content = data[segment.start + 4 : segment.end]
        numbers = content[1 : 1 + 2 * content[0] : 2]
        first, last, approximation = content[1 + 2 * content[0] :]
        if not frame.is_progressive:
            return cls(numbers, range(64))  # for a baseline JPEG, decoders ignore the three values
        return cls(numbers, range(first, last + 1) if approximation & 15 == 0 else range(0))

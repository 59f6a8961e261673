"""Which JPEGs are complete."""

from __future__ import annotations

import re
import struct
import tracemalloc

import pytest
from PIL import Image

from heroimg.errors import ImageTooComplex
from heroimg.pictures import jpeg
from heroimg.pictures.jpeg_segments import Frame, read_segments
from tests.helpers import pictures
from tests.helpers.pictures import encode, noise

BASELINE = encode(noise(60, 50), "JPEG")
GREY = encode(noise(60, 50, "L"), "JPEG")
PROGRESSIVE = encode(noise(60, 50), "JPEG", progressive=True)
RESTARTING = encode(noise(60, 50), "JPEG", restart_marker_blocks=3)
PROGRESSIVE_RESTARTING = encode(noise(60, 50), "JPEG", progressive=True, restart_marker_blocks=3)
WHOLE_JPEGS = {
    "baseline": BASELINE,
    "grey": GREY,
    "progressive": PROGRESSIVE,
    "with restarts": RESTARTING,
    "progressive with restarts": PROGRESSIVE_RESTARTING,
}

# The last block of a scan takes less than this. Its absence may go unnoticed.
LAST_BLOCK_BYTES = 80


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_first(data: bytes) -> bytes:
    """Make a JPEG with these bytes before its first segment."""
    return BASELINE[:2] + data + BASELINE[2:]


def with_scan_data(data: bytes) -> bytes:
    """Make a JPEG with these bytes in the middle of its entropy-coded data."""
    return BASELINE[:-500] + data + BASELINE[-500:]


def with_sampling(*samples: int) -> bytes:
    """Make a JPEG whose components have these samples, and more data than they need."""
    data = bytearray(encode(noise(60, 50), "JPEG", subsampling=0))
    frame = data.index(b"\xff\xc0")
    data[frame + 11 : frame + 18 : 3] = samples
    return bytes(data[:-2]) + bytes(data[-3000:-2]) * 20


def scans_of(data: bytes) -> list[int]:
    """List the positions at which the scans of a progressive JPEG begin, with their tables."""
    return [match.start() for match in re.finditer(rb"(?s)(\xff\xc4..[^\xff]*)*\xff\xda", data)]


def restarts_of(data: bytes) -> list[int]:
    return [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", data)]


def is_whole(data: bytes) -> bool:
    try:
        jpeg.check(data, True)
    except ImageTooComplex:
        raise
    except Exception:  # formats.py treats any exception as damage
        return False
    return True


@pytest.mark.parametrize("picture", WHOLE_JPEGS.values(), ids=WHOLE_JPEGS.keys())
def test_every_truncation_is_refused_until_all_blocks_are_there(picture: bytes) -> None:
    whole = [length for length in range(len(picture)) if is_whole(picture[:length])]
    assert whole[-2:] == [len(picture) - 2, len(picture) - 1]
    assert whole[0] > len(picture) - LAST_BLOCK_BYTES


@pytest.mark.parametrize("picture", WHOLE_JPEGS.values(), ids=WHOLE_JPEGS.keys())
def test_an_end_marker_does_not_replace_missing_blocks(picture: bytes) -> None:
    for length in range(len(picture) - 500, len(picture) - LAST_BLOCK_BYTES, 7):
        assert not is_whole(picture[:length] + b"\xff\xd9"), length


@pytest.mark.parametrize(
    "picture",
    [
        with_first(segment(0xE1, b"Exif\0\0" + b"\xff" * 20)),
        with_first(segment(0xE2, b"ICC_PROFILE\0")),
        with_first(segment(0xED, b"Photoshop 3.0\x008BIM\x04")),
        with_first(segment(0xEE, b"Adobe")),
        with_first(b"\xff\xfe\0\0"),
        with_first(b"\xff\xe1\0\1"),
        with_first(b"\0" * 65_537),
        with_first(b"\xff" * 60_000),
        with_first(b"\xff\x01\xff\xd3"),
        with_first(segment(0xE1, bytes(65_533)) * 20),
        PROGRESSIVE[:2] + segment(0xE1, b"\xff\xda" * 600) + PROGRESSIVE[2:],
        BASELINE + b"\xff\xd8\xff\xe0" * 1000,
        BASELINE[:-2] + b"\0\0SEFHe\0\0\0SEFT",
        BASELINE[:-2] + b"\xff\x10" * 99,
        PROGRESSIVE[:-2] + b"\0\0SEFHe\0\0\0SEFT",
        PROGRESSIVE + b"\xff\xda" * 600,
        RESTARTING[:-2] + b"\xff\xd5\xff\xd9",
    ],
    ids=range(17),
)  # fmt: skip
def test_metadata_and_trailers_do_not_matter(picture: bytes) -> None:
    assert is_whole(picture)


@pytest.mark.parametrize(
    "picture",
    [
        with_first(b"\xff\xd8"), with_first(segment(0x02, b"ab")), with_first(segment(0xDE, b"abc")),
        with_first(segment(0xC8, b"a")), with_first(segment(0xDD, b"\0\0\0")), with_first(b"\xff\xe1\xff\xff"),
        BASELINE.replace(b"\xff\xdb", b"\xff\xfe"),
        BASELINE.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
        PROGRESSIVE.replace(b"\xff\xc2\0\x11\x08", b"\xff\xc2\0\x11\x0c"),
        PROGRESSIVE.replace(b"\xff\xc2", b"\xff\xc0"),
        with_first(BASELINE[BASELINE.index(b"\xff\xc0") :][:19]),
    ],
    ids=["second start", "reserved", "hierarchical", "extension", "restart interval of 3 bytes", "endless metadata",
         "no tables", "12 bits", "progressive in 12 bits", "progressive called baseline", "two frames"],
)  # fmt: skip
def test_a_jpeg_that_no_browser_decodes_is_refused(picture: bytes) -> None:
    assert not is_whole(picture)


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_a_segment_contains_at_least_its_length(length: int) -> None:
    """Otherwise the decoder would take the next segment, which may be the frame, for the content of this one."""
    first, second = read_segments(b"\xff\xd8\xff\xdb" + bytes([0, length, 5, 0xFF, 0xDA, 0, 2]), 2)
    assert (first.start, first.end, second.start) == (2, max(6, 4 + length), 7)


@pytest.mark.parametrize("marker", [b"\xff\xd9", b"\xff\x01", b"\xff\xd0", b"\xff\xc4", b"\xff\x10"])
def test_a_marker_before_the_last_block_is_refused(marker: bytes) -> None:
    assert not is_whole(with_scan_data(marker))


@pytest.mark.parametrize(
    ("samples", "whole"),
    [
        ((0x11, 0x11, 0x11), True), ((0x22, 0x11, 0x11), True), ((0x21, 0x11, 0x11), True), ((0x12, 0x11, 0x11), True),
        ((0x41, 0x11, 0x11), True), ((0x31, 0x11, 0x11), True), ((0x11, 0x22, 0x22), True), ((0x22, 0x21, 0x12), True),
        ((0x31, 0x21, 0x21), False), ((0x13, 0x12, 0x11), False), ((0x22, 0x22, 0x22), False),
        ((0x01, 0x11, 0x11), False),
    ],
)  # fmt: skip
def test_colours_are_decoded_if_their_sampling_divides_the_largest(samples: tuple[int, ...], whole: bool) -> None:
    assert is_whole(with_sampling(*samples)) is whole


def test_a_short_restart_interval_is_refused() -> None:
    restart = restarts_of(RESTARTING)[3]
    assert not is_whole(RESTARTING[: restart - LAST_BLOCK_BYTES] + RESTARTING[restart:])


def test_a_missing_restart_interval_is_refused() -> None:
    first, second, *_ = restarts_of(RESTARTING)
    assert not is_whole(RESTARTING[:first] + RESTARTING[second:])


def test_eight_missing_restart_intervals_are_refused() -> None:
    picture = encode(noise(60, 50), "JPEG", restart_marker_blocks=1)
    restarts = restarts_of(picture)
    assert not is_whole(picture[: restarts[2]] + picture[restarts[10] :])


def test_more_restart_intervals_than_are_decoded_separately_are_counted() -> None:
    picture = encode(Image.new("L", (800, 800), 200), "JPEG", restart_marker_blocks=1)
    restarts = restarts_of(picture)
    assert len(restarts) == 9999
    assert is_whole(picture)
    assert not is_whole(picture[: restarts[20]] + picture[restarts[28] :])


def test_a_short_scan_is_refused_although_others_follow() -> None:
    colourful = Image.merge("RGB", [Image.effect_noise((120, 100), 90) for _ in range(3)])
    picture = encode(colourful, "JPEG", progressive=True)
    ends = [*scans_of(picture)[1:], len(picture) - 2]
    for start, end in zip(scans_of(picture), ends, strict=True):
        middle = (picture.index(b"\xff\xda", start) + 14 + end) // 2
        assert not is_whole(picture[:middle] + picture[end:])


def test_scans_that_end_before_the_last_detail_are_refused_without_an_end_marker() -> None:
    for scan in scans_of(PROGRESSIVE)[1:]:
        assert not is_whole(PROGRESSIVE[:scan])


def test_an_encoder_may_leave_out_detail_but_no_component() -> None:
    *_, last = scans_of(PROGRESSIVE)
    assert is_whole(PROGRESSIVE[:last] + b"\xff\xd9")
    assert not is_whole(PROGRESSIVE[: scans_of(PROGRESSIVE)[1]] + b"\xff\xd9")


def test_more_scans_than_the_limit_are_too_complex() -> None:
    jpeg.check(pictures.jpeg_of_many_scans(493), True)
    with pytest.raises(ImageTooComplex, match="This JPEG of 64 x 64 pixels has more than 503 scans"):
        jpeg.check(pictures.jpeg_of_many_scans(494), True)


@pytest.mark.parametrize(
    ("components", "bytes_needed"),
    [
        ([(1, 2, 2), (2, 1, 1), (3, 1, 1)], 9248 * 6944 * 3),
        ([(1, 1, 1), (2, 1, 1), (3, 1, 1)], 9248 * 6944 * 6),
        ([(1, 1, 1)], 9248 * 6944 * 2),
        ([(1, 2, 2)], 9248 * 6944 * 2),
    ],
)
def test_a_scans_memory_is_two_bytes_for_each_sample(components: list[tuple[int, int, int]], bytes_needed: int) -> None:
    assert Frame(9248, 6944, components, is_progressive=True).coefficient_bytes == bytes_needed


def test_whole_units_of_blocks_count_for_a_narrow_picture() -> None:
    assert Frame(1, 65_500, [(1, 4, 2)], is_progressive=True).coefficient_bytes == 32 * 65_504 * 2


def test_too_much_between_or_before_segments_is_too_complex() -> None:
    for first in (b"\0" * 65_538, segment(0xFE, b"") * 1000):
        with pytest.raises(ImageTooComplex):
            jpeg.check(with_first(first), True)


def test_a_picture_is_not_copied() -> None:
    for picture in (
        pictures.jpeg(3),
        pictures.jpeg(3)[:-2],
        encode(noise(1800, 1800), "JPEG", quality=92, progressive=True),
    ):
        assert len(picture) > 2_000_000
        tracemalloc.start()
        jpeg.check(picture, True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200_000

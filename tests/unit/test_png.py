"""Which PNGs are complete."""

from __future__ import annotations

import tracemalloc
import zlib
from itertools import product
from random import Random

import pytest

from heroimg.errors import ImageTooComplex
from heroimg.pictures import png
from tests.helpers import pictures
from tests.helpers.pictures import chunk, encode, noise, png_header, png_of_zeros

WIDTH, HEIGHT = 60, 40
HEADER = png_header(WIDTH, HEIGHT)
IEND = chunk(b"IEND", b"")
ROW = 1 + 3 * WIDTH
ROWS = b"".join(bytes([number % 5]) + Random(number).randbytes(ROW - 1) for number in range(HEIGHT))
STREAM = zlib.compress(ROWS)
ENDLESS = zlib.compressobj()
ENDLESS_STREAM = ENDLESS.compress(ROWS) + ENDLESS.flush(zlib.Z_SYNC_FLUSH)
DATA = chunk(b"IDAT", STREAM)
TEXT = chunk(b"tEXt", b"Comment\0hello")
PALETTE = chunk(b"PLTE", bytes(12))
INDEXED = png_header(WIDTH, HEIGHT, colour=3)
INDEXED_DATA = chunk(b"IDAT", zlib.compress(bytes((WIDTH + 1) * HEIGHT)))

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
MODES = [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 8), (4, 8), (4, 16), (6, 8), (6, 16)]
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def broken(whole: bytes) -> bytes:
    """Make a chunk's checksum wrong."""
    return whole[:-1] + bytes([whole[-1] ^ 1])


def chunks_of(size: int) -> bytes:
    return b"".join(chunk(b"IDAT", STREAM[start : start + size]) for start in range(0, len(STREAM), size))


def passes_of(width: int, height: int, interlace: int) -> list[tuple[int, int]]:
    """List the width and the height of each pass, pixel by pixel."""
    if not interlace:
        return [(width, height)]
    sizes = [(len(range(x, width, dx)), len(range(y, height, dy))) for x, y, dx, dy in ADAM7]
    return [size for size in sizes if all(size)]


def is_whole(data: bytes) -> bool:
    try:
        png.check(data, True)
    except ImageTooComplex:
        raise
    except Exception:  # formats.py treats any exception as damage
        return False
    return True


WHOLE = {
    "with text": HEADER + TEXT + DATA + IEND,
    "no end": HEADER + DATA,
    "broken end": HEADER + DATA + broken(IEND),
    "bytes behind": HEADER + DATA + IEND + b"more" * 99,
    "cut in the checksum of its data": (HEADER + DATA)[:-3],
    "cut in zlib's checksum": (HEADER + DATA)[:-6],
    "without zlib's checksum": HEADER + chunk(b"IDAT", STREAM[:-4]) + IEND,
    "wrong zlib's checksum": HEADER + chunk(b"IDAT", STREAM[:-4] + b"abcd") + IEND,
    "zlib stream without end": HEADER + chunk(b"IDAT", ENDLESS_STREAM) + IEND,
    "more rows than it has": HEADER + chunk(b"IDAT", zlib.compress(ROWS * 9)) + IEND,
    "bytes after zlib's end": HEADER + chunk(b"IDAT", STREAM + b"more") + IEND,
    "many chunks": HEADER + chunks_of(700) + IEND,
    "chunks of a byte": HEADER + chunks_of(1) + IEND,
    "broken chunk after all rows": HEADER + chunk(b"IDAT", STREAM[:-4]) + broken(chunk(b"IDAT", STREAM[-4:])) + IEND,
    "broken text": HEADER + broken(TEXT) + DATA + IEND,
    "nonsense in metadata": HEADER + chunk(b"iCCP", b"?") + chunk(b"tRNS", b"?") + chunk(b"eXIf", b"?") + DATA + IEND,
    "unknown chunk": HEADER + chunk(b"abCd", b"?") + DATA + IEND,
    "unknown critical chunk after its data": HEADER + DATA + chunk(b"ABCD", b"?") + IEND,
    "palette without use": HEADER + PALETTE + DATA + IEND,
    "palette": INDEXED + PALETTE + INDEXED_DATA + IEND,
    "65 million pixels": png_of_zeros(65, 1_000_000, 1, 0),
}


@pytest.mark.parametrize("picture", WHOLE.values(), ids=WHOLE.keys())
def test_a_png_with_all_its_rows_is_whole(picture: bytes) -> None:
    assert is_whole(picture)


DAMAGED = {
    "first bytes": HEADER[:8],
    "broken header": broken(HEADER) + DATA + IEND,
    "header with a byte more": HEADER[:8] + chunk(b"IHDR", HEADER[16:29] + b"\0") + DATA + IEND,
    "text before the header": HEADER[:8] + TEXT + HEADER[8:] + DATA + IEND,
    "two headers": HEADER + HEADER[8:] + DATA + IEND,
    "unknown compression": HEADER[:8] + chunk(b"IHDR", HEADER[16:26] + b"\1\0\0") + DATA + IEND,
    "unknown filter method": HEADER[:8] + chunk(b"IHDR", HEADER[16:26] + b"\0\1\0") + DATA + IEND,
    "unknown interlacing": HEADER[:8] + chunk(b"IHDR", HEADER[16:26] + b"\0\0\2") + DATA + IEND,
    "depth that its colour type does not have": png_header(WIDTH, HEIGHT, depth=4) + DATA + IEND,
    "no data": HEADER + IEND,
    "end before the data": HEADER + IEND + DATA,
    "broken data": HEADER + broken(DATA) + IEND,
    "broken data before others": HEADER + broken(chunk(b"IDAT", STREAM[:9])) + chunk(b"IDAT", STREAM[9:]) + IEND,
    "row missing": HEADER + chunk(b"IDAT", zlib.compress(ROWS[:-ROW])) + IEND,
    "byte missing": HEADER + chunk(b"IDAT", zlib.compress(ROWS[:-1])) + IEND,
    "half the stream": HEADER + chunk(b"IDAT", STREAM[: len(STREAM) // 2]) + IEND,
    "no zlib stream": HEADER + chunk(b"IDAT", b"?" * 9999) + IEND,
    "zlib's header of a byte": HEADER + chunk(b"IDAT", b"\x78") + IEND,
    "another compression in zlib's header": HEADER + chunk(b"IDAT", b"\x77\x85" + STREAM[2:]) + IEND,
    "too large a window in zlib's header": HEADER + chunk(b"IDAT", b"\x88\x1c" + STREAM[2:]) + IEND,
    "wrong check bits in zlib's header": HEADER + chunk(b"IDAT", b"\x78\x9d" + STREAM[2:]) + IEND,
    "dictionary in zlib's header": HEADER + chunk(b"IDAT", b"\x78\xbb" + STREAM[2:]) + IEND,
    "text between its data": HEADER + chunk(b"IDAT", STREAM[:500]) + TEXT + chunk(b"IDAT", STREAM[500:]) + IEND,
    "unknown critical chunk": HEADER + chunk(b"ABCD", b"?") + DATA + IEND,
    "invalid chunk type": HEADER + chunk(b"t3Xt", b"?") + DATA + IEND,
    "text that claims 2 GB": HEADER + b"\x80\0\0\0tEXt" + DATA + IEND,
    "data that claim 2 GB": HEADER + b"\x80\0\0\0IDAT" + STREAM,
    "missing palette": INDEXED + INDEXED_DATA + IEND,
    "palette after the data": INDEXED + INDEXED_DATA + PALETTE + IEND,
    "two palettes": INDEXED + PALETTE * 2 + INDEXED_DATA + IEND,
    "broken palette": INDEXED + broken(PALETTE) + INDEXED_DATA + IEND,
    "empty palette": INDEXED + chunk(b"PLTE", b"") + INDEXED_DATA + IEND,
    "palette of 257 colours": INDEXED + chunk(b"PLTE", bytes(3 * 257)) + INDEXED_DATA + IEND,
}


@pytest.mark.parametrize("picture", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_png_without_all_its_rows_is_damaged(picture: bytes) -> None:
    assert not is_whole(picture)


def test_a_png_cut_anywhere_in_its_rows_is_damaged() -> None:
    picture = HEADER + DATA + IEND
    whole = [length for length in range(len(picture)) if is_whole(picture[:length])]
    # The last row is followed by zlib's end of at most two bytes, its checksum, the chunk's checksum and the end chunk.
    assert whole == list(range(whole[0], len(picture)))
    assert whole[0] >= len(picture) - 2 - 4 - 4 - 12


@pytest.mark.parametrize("width", range(262_144, 262_144 + 300, 23))
def test_the_last_row_is_there_as_soon_as_zlib_gives_its_last_byte(width: int) -> None:
    stream = zlib.compress(bytes(1 + width))
    for length in range(len(stream) - 20, len(stream)):
        has_row = len(zlib.decompressobj().decompress(stream[:length])) == 1 + width
        assert is_whole(png_header(width, 1, colour=0) + chunk(b"IDAT", stream[:length])) is has_row


@pytest.mark.parametrize("interlace", [0, 1])
def test_every_row_of_every_kind_is_counted(interlace: int) -> None:
    for (colour, depth), width, height in product(MODES, (1, 2, 3, 5, 8, 9), (1, 2, 4, 5, 9)):
        sizes = passes_of(width, height, interlace)
        rows = b"".join((b"\4" + bytes((across * depth * SAMPLES[colour] + 7) // 8)) * down for across, down in sizes)
        head = png_header(width, height, depth, colour, interlace) + (PALETTE if colour == 3 else b"")
        assert is_whole(head + chunk(b"IDAT", zlib.compress(rows)))
        assert not is_whole(head + chunk(b"IDAT", zlib.compress(rows[:-1])))


@pytest.mark.parametrize("interlace", [0, 1])
def test_no_row_begins_with_an_unknown_filter(interlace: int) -> None:
    sizes = passes_of(9, 9, interlace)
    rows = [b"\0" + bytes(3 * across) for across, down in sizes for _ in range(down)]
    for number in range(len(rows)):
        data = b"".join(rows[:number]) + b"\5" + b"".join(rows[number:])[1:]
        assert not is_whole(png_header(9, 9, interlace=interlace) + chunk(b"IDAT", zlib.compress(data)))


def test_a_row_longer_than_the_pieces_has_one_filter() -> None:
    for position in (0, 300_001):
        rows = bytearray(600_002)
        rows[position] = 5
        rows[position + 1] = 9
        assert not is_whole(png_header(100_000, 2) + chunk(b"IDAT", zlib.compress(rows)))
        rows[position] = 4
        assert is_whole(png_header(100_000, 2) + chunk(b"IDAT", zlib.compress(rows)))


def test_too_many_chunks_are_too_complex() -> None:
    with pytest.raises(ImageTooComplex, match="100,000 chunks"):
        png.check(HEADER + TEXT * 100_000 + DATA, True)


def test_a_side_that_libpng_refuses_is_too_complex() -> None:
    with pytest.raises(ImageTooComplex, match=r"1000001 x 1 pixels; the limit for a side is 1,000,000"):
        png.check(png_of_zeros(1_000_001, 1), True)


def test_rows_are_not_kept() -> None:
    expanding = png_of_zeros(2000, 2000, 16, 6)
    for picture in (
        expanding,
        encode(noise(700, 700), "PNG"),
        pictures.png()[:33] + TEXT * 50_000 + pictures.png()[33:],
    ):
        tracemalloc.start()
        png.check(picture, True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2_000_000

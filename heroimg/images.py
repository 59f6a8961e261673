"""What counts as a picture: a PNG or a JPEG that decodes, told by its bytes and never by its name.

As little is decoded as proves a picture whole: of a JPEG the whole entropy-coded stream at 1/8 scale, of a PNG the
checksums of all chunks. Nothing is ever re-encoded; the bytes handed back are the bytes that came.

Pillow's two classes are used directly, not `Image.open`: that would call a JPEG with several pictures inside, as phones
write them, an MPO, and load decoders that we do not want.
"""

from __future__ import annotations

import threading
from io import BytesIO
from zlib import crc32

from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from .errors import HeroimgError, ImageDamaged, ImageTooComplex, NotAPicture, TooManyPixels

MAX_PIXELS = 50_000_000

# A JPEG in several scans (every progressive one) is decoded by way of all its coefficients, two bytes each: 150 MB for
# 50 million pixels with colours at half resolution, as is usual, and twice that with colours in full. A worker has 300.
MAX_COEFFICIENT_BYTES = 160_000_000

# Each scan goes over all coefficients again: 8 ms for 50 million pixels. Encoders write about ten scans.
MAX_SCANS = 200

_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg"}

# One picture at a time in each process: decoding keeps a core busy anyway, and memory for it is needed once.
_one_at_a_time = threading.Lock()


def media_type_of(data: bytes, *, decode: bool = True) -> str:
    """Find the type in the bytes, and find out whether they are a whole picture.

    :param decode: False looks at the header alone.
    :raises NotAPicture: neither PNG nor JPEG.
    :raises TooManyPixels: refused before anything is decoded, as is ImageTooComplex.
    :raises ImageDamaged: it does not decode.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        check, media_type = _check_png, "image/png"
    elif data.startswith(b"\xff\xd8\xff"):
        check, media_type = _check_jpeg, "image/jpeg"
    else:
        raise NotAPicture
    try:
        with _one_at_a_time:
            check(data, decode)
    except HeroimgError:
        raise
    except Exception as error:  # Pillow's parsers raise whatever they stumble over: SyntaxError, struct.error, ...
        raise ImageDamaged from error
    return media_type


def extension_of(media_type: str) -> str:
    """Give the usual file name extension, without its dot."""
    return _EXTENSIONS.get(media_type, "bin")


def _check_png(data: bytes, decode: bool) -> None:
    stream = BytesIO(data)
    png = PngImageFile(stream)
    _refuse_too_many_pixels(png.size)
    if not decode:
        return
    if not png.tile:
        raise ImageDamaged  # no image data at all
    png.verify()  # every chunk's checksum but the last one's, which it stops before
    if stream.read(4) != crc32(b"IEND").to_bytes(4, "big"):
        raise ImageDamaged


def _check_jpeg(data: bytes, decode: bool) -> None:
    stream = BytesIO(data)
    jpeg = JpegImageFile(stream)
    _refuse_too_many_pixels(jpeg.size)
    if not decode:
        return
    start = stream.tell()  # Pillow stops reading where the first scan's entropy-coded data begins
    if not _is_in_one_scan(data, start, jpeg):
        _refuse_costly_scans(data, start, jpeg)
    width, height = jpeg.size
    jpeg.draft("L", (max(1, width // 8), max(1, height // 8)))
    jpeg.load()
    # A decoder that has all its pixels does not miss the end's marker, which cannot occur within a scan.
    if data.find(b"\xff\xd9", start) < 0:
        raise ImageDamaged


def _refuse_too_many_pixels(size: tuple[int, int]) -> None:
    pixels = size[0] * size[1]
    if pixels > MAX_PIXELS:
        raise TooManyPixels(
            f"The picture has {pixels / 1e6:.1f} million pixels; the limit is {MAX_PIXELS / 1e6:.0f} million."
        )


def _is_in_one_scan(data: bytes, start: int, jpeg: JpegImageFile) -> bool:
    """Tell whether the first scan has all the components, by its header, which ends where its data start."""
    length = 6 + 2 * jpeg.layers
    header = b"\xff\xda" + length.to_bytes(2, "big") + bytes([jpeg.layers])
    return "progressive" not in jpeg.info and data.startswith(header, start - 2 - length)


def _refuse_costly_scans(data: bytes, start: int, jpeg: JpegImageFile) -> None:
    """Bound the memory and the time of a picture that is decoded by way of all its coefficients."""
    width, height = jpeg.size
    samples = sum(h * v for _, h, v, _ in jpeg.layer)
    densest = max(h for _, h, _, _ in jpeg.layer) * max(v for _, _, v, _ in jpeg.layer)
    needed = 2 * width * height * samples // densest
    if needed > MAX_COEFFICIENT_BYTES:
        raise ImageTooComplex(
            f"This progressive JPEG takes {needed / 1e6:.0f} MB to decode; the limit is "
            f"{MAX_COEFFICIENT_BYTES / 1e6:.0f} MB. Please save it smaller, or as a standard (baseline) JPEG."
        )
    scans = 1 + data.count(b"\xff\xda", start)
    if scans > MAX_SCANS:
        raise ImageTooComplex(
            f"This JPEG has {scans} scans; the limit is {MAX_SCANS}. Please save it as a standard (baseline) JPEG."
        )

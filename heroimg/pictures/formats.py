"""The picture formats that heroimg accepts, and the kinds of files that it names in a refusal.

`FORMATS` is the list of accepted formats. The first bytes decide the format, never the file name. Pictures are not
re-encoded: readers get the bytes that were uploaded.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from heroimg.errors import HeroimgError, ImageDamaged, NotAPicture
from heroimg.pictures import jpeg, png


@dataclass(frozen=True)
class Format:
    """A format that heroimg accepts.

    :param signature: matches the start of every file of this format.
    :param extension: the usual file name extension, without its dot.
    :param check: takes a file's bytes, and whether to decode them or to check only the header. It may raise any
        exception for a damaged file. It raises a HeroimgError for a file that takes too much memory or time.
    """

    name: str
    signature: bytes
    media_type: str
    extension: str
    check: Callable[[bytes, bool], None]


FORMATS = (
    Format("PNG", rb"\x89PNG\r\n\x1a\n", "image/png", "png", png.check),
    Format("JPEG", rb"\xff\xd8\xff", "image/jpeg", "jpg", jpeg.check),
)

# Other files that people choose. Each has a word for programs, a name for people, and a pattern of the first bytes. The
# first match counts. AVIF and HEIC are containers like MP4 and MOV (ISO/IEC 23008-12). The first row of videos is MP4,
# MOV, WebM, AVI and MPEG-PS; the second row is MPEG-TS, MTS, WMV and FLV. PDF readers accept other bytes before the
# header. A text may begin with a byte order mark.
_REFUSED_KINDS = (
    ("avif", "an AVIF picture", rb"\0.{3}ftyp(.{4}){0,10}?avi[fs]"),
    ("heic", "a HEIC photo", rb"\0.{3}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)"),
    ("webp", "a WebP picture", rb"RIFF.{4}WEBP"),
    ("gif", "a GIF picture", rb"GIF8[79]a"),
    ("bmp", "a BMP picture", rb"BM.{4}\0{4}"),
    ("tiff", "a TIFF picture", rb"II[*+]\0|MM\0[*+]"),
    ("svg", "an SVG drawing", rb"(?i)(\xef\xbb\xbf)?\s*<(?!!doctype html)([?!].*<)?svg\b"),
    ("html", "a web page", rb"(?i)(\xef\xbb\xbf)?\s*<(.*<)?(!doctype html|html|head|body|script)\b"),
    ("video", "a video", rb"\0.{3}(ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|RIFF.{4}AVI |\0\0\x01[\xb3\xba]"),
    ("video", "a video", rb"G.{187}G.{187}G|.{4}G.{191}G.{191}G|0&\xb2u\x8ef\xcf\x11|FLV\x01"),
    ("pdf", "a PDF document", rb".*%PDF-"),
    ("text", "a text file", rb"\xff\xfe|\xfe\xff"),
    ("text", "a text file", rb"([\t\n\f\r -~]|[\xc2-\xf4][\x80-\xbf]{1,3})+[\xc2-\xf4]?[\x80-\xbf]*\Z"),
    ("nothing", "an empty file", rb"\0*\Z"),
    ("unknown", "a file of another kind", b""),
)
_REFUSED_KINDS_BYTES = 1024

# The headers of most pictures are shorter than this.
_HEADER_BYTES = 128 * 1024

# Each process checks one picture at a time, to limit its memory. Decoding keeps a core busy anyway.
_one_at_a_time = threading.Lock()


def check_picture(read: Callable[[int], bytes], *, decode: bool = True) -> str:
    """Check that a picture is complete, and return its media type.

    :param read: `read(n)` returns the first n bytes, and `read(-1)` returns all bytes. It is called when the check
        begins, so a file that waits for its check is not read into memory.
    :param decode: if False, check only the header.
    :raises NotAPicture: the picture has no format of FORMATS. The field `found` names its kind.
    :raises TooManyPixels: the picture is too large; nothing was decoded.
    :raises ImageTooComplex: the picture takes too much memory or time to decode.
    :raises ImageDamaged: the picture does not decode.
    """
    with _one_at_a_time:
        if not decode:
            with suppress(ImageDamaged):  # the header may be longer than these bytes
                return _check(read(_HEADER_BYTES), decode)
        return _check(read(-1), decode)


def extension_of(media_type: str) -> str:
    """Give the usual file name extension, without its dot."""
    return next((known.extension for known in FORMATS if known.media_type == media_type), "bin")


def _check(data: bytes, decode: bool) -> str:
    for candidate in FORMATS:
        if re.match(candidate.signature, data, re.DOTALL):
            try:
                candidate.check(data, decode)
            except HeroimgError:
                raise
            except Exception as error:  # struct.error, zlib.error, IndexError, ... from damaged bytes
                raise ImageDamaged from error
            return candidate.media_type
    start = data[:_REFUSED_KINDS_BYTES]
    found, name = next((found, name) for found, name, pattern in _REFUSED_KINDS if re.match(pattern, start, re.DOTALL))
    accepted = " or ".join(known.name for known in FORMATS)
    raise NotAPicture(f"This is {name}. Please choose a {accepted}, such as a screenshot.", found=found)

"""Which formats are recognised, by their first bytes."""

from __future__ import annotations

import re

import pytest

from heroimg.errors import ImageDamaged, NotAPicture
from heroimg.pictures.formats import FORMATS, check_picture, extension_of
from heroimg.stores.files.admission import _PICTURES_BEGIN
from tests.helpers import pictures


def refusal_of(data: bytes) -> NotAPicture:
    with pytest.raises(NotAPicture) as refusal:
        check_picture(lambda size: data if size < 0 else data[:size])
    return refusal.value


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("avif", b"\0\0\0\x1cftypavif\0\0\0\0mif1miaf"),
        ("avif", b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf"),
        ("heic", b"\0\0\0\x18ftypheix\0\0\0\0mif1heic"),
        ("heic", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"),
        ("webp", b"RIFF\x10\0\0\0WEBPVP8 "),
        ("gif", b"GIF87a"),
        ("gif", b"GIF89a" + pictures.jpeg()),
        ("bmp", b"BM\x10\0\0\0\0\0\0\0\x36\0\0\0"),
        ("tiff", b"II*\0\x08\0\0\0"),
        ("tiff", b"MM\0*\0\0\0\x08"),
        ("pdf", b"\n%PDF-1.4"),
        ("pdf", b"\xef\xbb\xbf%PDF-1.4"),
        ("pdf", b"\x1b%-12345X@PJL\r\n" * 50 + b"%PDF-1.4"),
        ("html", b"<html>%PDF-1.4"),
        ("svg", b"<svg>"),
        ("svg", b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn -->\n<SVG width="3">'),
        ("svg", b"<!DOCTYPE svg PUBLIC>\n<svg>"),
        ("html", b"\n<!DOCTYPE html>\n<svg>"),
        ("html", b"<!-- saved -->\n<HTML>"),
        ("video", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "),
        ("video", b"\0\0\0\x18ftypisom\0\0\0\0mp42"),
        ("video", b"\0\0\0\x08wide\0\0\0\0mdat"),
        ("video", b"\x1aE\xdf\xa3\x01\0\0\0"),
        ("video", b"RIFF\x10\0\0\0AVI LIST"),
        ("video", b"\0\0\0\x08free\0\0\0\0mdat"),
        ("video", b"\0\0\0\x08skip\0\0\0\0mdat"),
        ("video", b"\0\0\x01\xba\x44\0\4\0"),
        ("video", b"\0\0\x01\xb3\x14\0\xf0\x13"),
        ("video", (b"G\x40\0\x10" + bytes(184)) * 9),
        ("video", (b"\0\0\0\0G\x40\0\x10" + bytes(184)) * 9),
        ("video", b"0&\xb2u\x8ef\xcf\x11\xa6\xd9"),
        ("video", b"FLV\x01\x05\0\0\0\x09"),
        ("text", b"<?xml version='1.0'?><a/>"),
        ("text", b"BMW is a car"),
        ("text", "Füße 😀".encode() * 500),
        ("text", "Füße 😀".encode("utf-16")),
        ("text", b"\xfe\xff" + "Füße 😀".encode("utf-16-be")),
        ("text", b"Good morning. " * 99),
        ("nothing", b""),
        ("nothing", bytes(9999)),
        ("unknown", b"\xff\xd8"),
        ("unknown", b"\x89PNG\n"),
        ("unknown", bytes(range(256)) * 9),
    ],
)
def test_a_refused_file_is_named(kind: str, data: bytes) -> None:
    assert refusal_of(data).fields == {"found": kind}


def test_a_refusal_repeats_nothing_of_the_file() -> None:
    assert "secret" not in refusal_of(b"<svg>secret</svg>").sentence + refusal_of(b"secret").sentence


def test_a_long_text_that_looks_like_markup_is_named_soon() -> None:
    for piece in (b"<", b"<!--", b"<!---->", b" ", b"<?xml ", "é".encode()):
        assert refusal_of(piece * 1_000_000).fields == {"found": "text"}


def test_a_media_type_has_one_extension() -> None:
    assert [extension_of(known.media_type) for known in FORMATS] == ["png", "jpg"]
    assert extension_of("image/webp") == "bin"


def test_the_header_alone_is_read_if_it_is_enough() -> None:
    sizes = []

    def read(size: int) -> bytes:
        sizes.append(size)
        return pictures.png(1)[:size]

    assert check_picture(read, decode=False) == "image/png"
    assert sizes == [128 * 1024]


def test_the_folder_of_pictures_admits_each_format() -> None:
    for known in FORMATS:
        assert any(re.match(known.signature, beginning, re.DOTALL) for beginning in _PICTURES_BEGIN), known.name


def test_all_is_read_if_the_header_is_longer() -> None:
    metadata = b"\xff\xe1\xff\xff" + bytes(0xFFFF - 2)
    picture = pictures.jpeg()[:2] + metadata * 3 + pictures.jpeg()[2:]
    assert check_picture(lambda size: picture if size < 0 else picture[:size], decode=False) == "image/jpeg"
    with pytest.raises(ImageDamaged):
        check_picture(lambda _: picture[:1000], decode=False)

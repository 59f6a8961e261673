"""Hostile inputs: pictures, forms and ids that no honest client sends, with the codes of their answers."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from tests.helpers import pictures
from tests.helpers.pictures import chunk, png_header, png_of_zeros, zeros

MEGABYTE = 2**20


def png_with(*chunks: bytes) -> bytes:
    """Make a PNG with these chunks before its image data."""
    return pictures.png()[:33] + b"".join(chunks) + pictures.png()[33:]


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def _scan(components: Iterable[int], coefficients: int, data: bytes) -> bytes:
    listed = b"".join(bytes([component, 0]) for component in components)
    return _segment(0xDA, bytes([len(listed) // 2]) + listed + bytes([coefficients, coefficients, 0])) + data


def jpeg_of_empty_scans(count: int, width: int, height: int, sampling: tuple[int, ...] = (0x11, 0x11, 0x11)) -> bytes:
    """Make a progressive JPEG whose scans add nothing: each takes few bytes, but the full time to decode.

    ITU-T T.81, B.2.2, B.2.3 and G.1.2.2. Each Huffman table has one code, the bit 0: "the value is 0" and "16,384
    blocks are empty, and as many more as the next 14 bits say".

    :param sampling: no other component has more samples than the first.
    """
    every = range(1, len(sampling) + 1)
    frame = struct.pack(">BHHB", 8, height, width, len(sampling))
    frame += b"".join(bytes([number, sampled, 0]) for number, sampled in zip(every, sampling, strict=True))
    tables = _segment(0xC4, b"\0\1" + bytes(16)) + _segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    head = b"\xff\xd8" + _segment(0xDB, b"\0" + b"\1" * 64) + _segment(0xC2, frame) + tables
    units = -(-width // (sampling[0] >> 4) // 8) * -(-height // (sampling[0] & 15) // 8)
    values = units * sum((sampled >> 4) * (sampled & 15) for sampled in sampling)
    runs = -(-(-(-width // 8) * -(-height // 8)) // 16_384)
    return head + _scan(every, 0, bytes(values // 8 + 1)) + _scan([1], 1, bytes(runs * 2)) * count + b"\xff\xd9"


def jpeg_of_restarts(width: int, height: int) -> bytes:
    """Make a grey JPEG with a restart marker after each block. Every coefficient is 0."""
    tables = b"".join(_segment(0xC4, bytes([table, 1]) + bytes(16)) for table in (0x00, 0x10))
    frame = _segment(0xC0, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
    head = b"\xff\xd8" + _segment(0xDB, b"\0" + b"\1" * 64) + frame + tables + _segment(0xDD, b"\0\1")
    blocks = -(-width // 8) * -(-height // 8)
    intervals = b"".join(b"\x3f\xff" + bytes([0xD0 + number]) for number in range(8)) * (blocks // 8 + 1)
    return head + _segment(0xDA, b"\1\1\0\0\x3f\0") + intervals[: 3 * blocks - 2] + b"\xff\xd9"


def jpeg_with(segment: bytes, count: int = 1) -> bytes:
    """Make a JPEG that starts with this many copies of a segment."""
    return b"\xff\xd8" + segment * count + pictures.jpeg()[2:]


# Pictures, and the codes of their answers; "" if the picture is accepted.
PICTURES: dict[str, tuple[bytes, str]] = {
    "a png of 65 million pixels of 16 bits": (png_of_zeros(9286, 6999, 16, 6), ""),
    "a png of 65 x 1,000,000": (png_of_zeros(65, 1_000_000, 8, 0), ""),
    "a png of 100,000 x 1": (png_of_zeros(100_000, 1), ""),
    "a png of 1 x 1,000,001": (png_of_zeros(1, 1_000_001), "image_too_complex"),
    "a png of 2 to the 31st squared": (pictures.png_of_size(2**31 - 1, 2**31 - 1), "too_many_pixels"),
    "a png of 2 to the 32nd less 1, squared": (pictures.png_of_size(2**32 - 1, 2**32 - 1), "too_many_pixels"),
    "30,000 text chunks": (png_with(chunk(b"tEXt", b"a\0b") * 30_000), ""),
    "90,000 image chunks": (png_with(chunk(b"IDAT", b"") * 90_000), ""),
    "420,000 empty chunks": (png_with(chunk(b"tEXt", b"") * 420_000), "image_too_complex"),
    "zlib bombs in text": (png_with(*[chunk(b"zTXt", b"bomb\0\0" + zeros(100_000_000))] * 50), ""),
    "a zlib bomb in international text": (png_with(chunk(b"iTXt", b"x\0\1\0\0\0" + zeros(100_000_000))), ""),
    "a zlib bomb in a colour profile": (png_with(chunk(b"iCCP", b"x\0\0" + zeros(100_000_000))), ""),
    "a chunk that claims 4 GB": (png_header(10, 10) + b"\xff\xff\xff\xffIDAT" + bytes(100), "image_damaged"),
    "a chunk that claims 2 GB": (png_header(10, 10) + b"\x7f\xff\xff\xffIDAT" + bytes(100), "image_damaged"),
    "360,000 scans of 640 x 480": (jpeg_of_empty_scans(360_000, 640, 480), "image_too_complex"),
    "160,000 scans of 64 x 64": (jpeg_of_empty_scans(160_000, 64, 64), "image_too_complex"),
    "500 scans of 64 x 64": (pictures.jpeg_of_many_scans(490), ""),
    "24,000 scans of 1 x 65,500": (jpeg_of_empty_scans(24_000, 1, 65_500, (0x42, 0x11, 0x11)), "image_too_complex"),
    "24,000 scans of 65,500 x 1": (jpeg_of_empty_scans(24_000, 65_500, 1, (0x24, 0x11, 0x11)), "image_too_complex"),
    "25 scans of 65 million pixels": (pictures.jpeg_of_many_scans(15, 13_000, 5_000), ""),
    "5 MB of fill bytes and no marker": (b"\xff\xd8" + b"\xff" * 5_000_000 + b"\0", "image_damaged"),
    "5 MB of fill bytes to the end": (b"\xff\xd8" + b"\xff" * 5_000_000, "image_damaged"),
    "half fill bytes": (b"\xff\xd8" + b"\xff\0" * 2_500_000, "image_damaged"),
    "80 colour profiles": (jpeg_with(_segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(60_000)), 80), ""),
    "80 XMP packets of open brackets": (
        jpeg_with(_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 60_000), 80), "",
    ),
    "400,000 Photoshop blocks": (
        jpeg_with(_segment(0xED, b"Photoshop 3.0\0" + b"8BIM\0\1\0\0\0\0\0\0" * 5_000), 80), "",
    ),
    "1,000,000 restart intervals": (jpeg_of_restarts(8_000, 8_000), ""),
    "2.5 million restart markers": (pictures.jpeg()[:-2] + b"\xff\xd0" * 2_500_000 + b"\xff\xd9", ""),
}  # fmt: skip

IMAGE = b'form-data; name="image"; filename="a"'
FORM_END = b"--b--\r\n"


def part(content: bytes = b"x", headers: bytes = b"", disposition: bytes = IMAGE) -> bytes:
    """Make a form's part."""
    return b"--b\r\nContent-Disposition: " + disposition + b"\r\n" + headers + b"\r\n" + content + b"\r\n"


# Forms, and the codes of the answers.
FORMS: dict[str, tuple[bytes, str]] = {
    "10,000 parts": (part() * 10_000 + FORM_END, "request_too_large"),
    "10,000 fields": (part(disposition=b'form-data; name="a"') * 10_000 + FORM_END, "request_too_large"),
    "a part without end": (part(pictures.jpeg())[:-2], "no_image"),
    "a part's headers without end": (b"--b\r\nContent-Disposition: form-data", "no_image"),
    "300 KB of headers": (part(headers=b"a:b\r\n" * 60_000) + FORM_END, "request_too_large"),
    "180 KB of headers in each of 15 parts": (part(headers=b"a:b\r\n" * 36_000) * 15 + FORM_END, "request_too_large"),
    "a header line of 180 KB": (part(headers=b"a: " + b"b" * 180_000 + b"\r\n") + FORM_END, "request_too_large"),
    "30,000 parameters": (part(disposition=IMAGE + b"; a=b" * 30_000) + FORM_END, "request_too_large"),
    "60,000 semicolons": (part(disposition=IMAGE + b" ;" * 60_000) + FORM_END, "request_too_large"),
    "70,000 escaped quotes": (part(disposition=IMAGE[:-2] + b'\\"' * 70_000 + b'"') + FORM_END, "request_too_large"),
    "a preamble of 200 KB": (b"x" * 200_000 + b"\r\n" + part() + FORM_END, "not_a_picture"),
    "a preamble without end": (b"x" * 30 * MEGABYTE, "no_image"),
    "an epilogue of 30 MB": (part() + FORM_END + b"x" * 30 * MEGABYTE, "not_a_picture"),
    "30 MB of line breaks": (part(b"\r\n" * 15 * MEGABYTE) + FORM_END, "image_too_large"),
    "30 MB that are nearly boundaries": (part((b"\r\n--b" + b" " * 1000 + b"x") * 31_000) + FORM_END, "no_image"),
    "10 MB of short near boundaries": (part(b"\r\n--bx" * 1_700_000) + FORM_END, "no_image"),
    "a form within a form": (
        part(b"x\r\n" + part(pictures.jpeg()) + FORM_END, b"Content-Type: multipart/mixed; boundary=b\r\n") + FORM_END,
        "not_a_picture",
    ),
    "a part in base64": (part(b"/9j/4AAQ", b"Content-Transfer-Encoding: base64\r\n") + FORM_END, "not_a_picture"),
    "a part in an unknown alphabet": (
        part(headers=b"Content-Type: a/b; charset=utf-7\r\n") + FORM_END, "not_a_picture",
    ),
    "headers that are not UTF-8": (part(headers=b"a: \xff\xfe\r\n") + FORM_END, "no_image"),
    "no disposition": (b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n" + FORM_END, "no_image"),
    "a null byte in the field's name": (
        part(disposition=b'form-data; name="image\0"; filename="a"') + FORM_END, "no_image",
    ),
    "an end and nothing else": (FORM_END, "no_image"),
}  # fmt: skip

NOT_IDS = {
    "a null byte": "0" * 31 + "\0",
    "a null byte at the end": "0" * 32 + "\0",
    "a line break at the end": "0" * 32 + "\n",
    "capitals": "A" * 32,
    "wide digits": "０" * 32,
    "Arabic digits": "٠" * 32,
    "the name of a sidecar": "0" * 32 + ".json",
    "the folder": ".",
    "the folder above": "../" * 10 + "etc/passwd",
    "an absolute path": "/etc/passwd",
    "half a surrogate's replacement": "\ufffd" * 32,
    "right to left": "\u202e" + "0" * 31,
    "a glob": "*",
    "a key of another": "heroimg:*",
    "2,000 characters": "0" * 2_000,
}

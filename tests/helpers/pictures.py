"""Pictures of every kind, made here."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from io import BytesIO
from typing import Any

import pillow_heif
from PIL import Image, ImageDraw

pillow_heif.register_heif_opener()

FIVE_MB = 5 * 1024 * 1024


@cache
def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Make a picture that hardly compresses, like a photograph of leaves."""
    return Image.effect_noise((width, height), 90).convert(mode)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@cache
def jpeg(megabytes: float = 0.05) -> bytes:
    """Make a JPEG of about this many megabytes."""
    side = int((megabytes * 1e6 / 0.85) ** 0.5)
    return encode(noise(side, side), "JPEG", quality=92)


@cache
def png(megabytes: float = 0.05) -> bytes:
    """Make a PNG of about this many megabytes."""
    side = int((megabytes * 1e6 / 2.4) ** 0.5)
    return encode(noise(side, side), "PNG")


@cache
def portrait(width: int = 2400) -> bytes:
    """Make a JPEG of about 3 MB that is nice to look at: a face before a sky, with a photograph's grain."""
    image = Image.linear_gradient("L").resize((2400, 1800))
    image = Image.merge(
        "RGB", [image.point([255 - value * part // 255 for value in range(256)]) for part in (110, 60, 5)]
    )
    draw = ImageDraw.Draw(image)
    for centre, radius, colour in (
        ((1200, 1900), 620, "#e8553d"), ((1200, 900), 560, "#f2c9a1"), ((1000, 820), 70, "#3a2a20"),
        ((1400, 820), 70, "#3a2a20"),
    ):  # fmt: skip
        x, y = centre
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
    draw.pieslice((620, 310, 1780, 1200), 180, 360, "#4a2f1d")
    draw.arc((900, 780, 1500, 1240), 25, 155, "#a8402f", 40)
    size = (width, width * 3 // 4)
    return encode(Image.blend(image.resize(size), noise(*size), 0.08), "JPEG", quality=97)


@cache
def photograph(width: int, height: int, quality: int = 90) -> bytes:
    """Make a JPEG of any size quickly: a tile of noise, repeated."""
    image = Image.new("RGB", (width, height))
    tile = noise(1000, 1000)
    for x in range(0, width, 1000):
        for y in range(0, height, 1000):
            image.paste(tile, (x, y))
    return encode(image, "JPEG", quality=quality)


def quarters(left: str = "#c02020", right: str = "#2020c0") -> Image.Image:
    """Make a picture of 400 x 200 pixels that shows which side is up.

    Its upper half has the colours `left` and `right`; its lower half is green.
    """
    image = Image.new("RGB", (400, 200), "#20c020")
    image.paste(left, (0, 0, 200, 100))
    image.paste(right, (200, 0, 400, 100))
    return image


@cache
def phone_jpeg() -> bytes:
    """Make a JPEG with more than one picture inside, as phones write them: Pillow's MPO."""
    return encode(noise(640, 480), "MPO", save_all=True, append_images=[noise(320, 240)])


@cache
def progressive_jpeg(width: int, height: int, subsampling: int = 2) -> bytes:
    return encode(
        Image.new("RGB", (width, height), (90, 120, 40)), "JPEG", quality=60, progressive=True, subsampling=subsampling
    )


def padded_jpeg(size: int) -> bytes:
    """Make a JPEG of exactly this many bytes: zeros follow its end."""
    return jpeg(3).ljust(size, b"\0")


@cache
def long_jpeg() -> bytes:
    """Make a JPEG of 16 MB: more than the buffers of a connection hold before its reader reads."""
    return padded_jpeg(16 * 1024 * 1024)


@cache
def jpeg_of_many_scans(scans: int, width: int = 64, height: int = 64) -> bytes:
    """Repeat one scan of a progressive JPEG. A decoder must process each copy."""
    data = progressive_jpeg(width, height)
    start = data.index(b"\xff\xda\x00\x08\x01\x01")
    end = data.index(b"\xff\xda", start + 2)
    return data[:end] + data[start:end] * scans + data[end:]


def chunk(kind: bytes, content: bytes) -> bytes:
    """Make a PNG chunk with its length and its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    """Start a PNG that claims to be this large."""
    content = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", content)


@cache
def zeros(count: int) -> bytes:
    """Compress at least this many zeros, in zlib's format without its checksum, faster than zlib does."""
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    megabyte = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\x9c" + megabyte * (count // 2**20) + deflate.compress(bytes(count % 2**20)) + deflate.flush()


def png_of_zeros(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """Make a whole PNG that expands as much as a PNG can."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = height * (1 + (width * depth * samples + 7) // 8)
    return png_header(width, height, depth, colour) + chunk(b"IDAT", zeros(rows)) + chunk(b"IEND", b"")


def png_of_size(width: int, height: int) -> bytes:
    """Make a PNG that claims to be this large, and has fewer rows. All its checksums are right."""
    return png_header(width, height) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def jpeg_of_size(width: int, height: int) -> bytes:
    """Make a JPEG whose header claims to be this large."""
    data = bytearray(jpeg())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)

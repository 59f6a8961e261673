"""Photographs for the benchmarks, made of noise: as large and as costly to decode as those that people upload."""

from __future__ import annotations

from functools import cache

from PIL import Image

from tests.helpers.pictures import encode

# Width, height and megabytes: a phone's usual picture, a large one, and one of the largest. The PNG is a screenshot.
_JPEGS = {"0.7 MB JPEG": (2048, 1536, 0.7), "3 MB JPEG": (4032, 3024, 3.0), "5 MB JPEG": (4032, 3024, 5.0)}
PHONES = (4032, 3024, 4.0)
_PNGS = {"1.2 MB PNG": (1170, 1.2)}


@cache
def photographs() -> dict[str, bytes]:
    return {name: jpeg(*size) for name, size in _JPEGS.items()} | {name: png(*size) for name, size in _PNGS.items()}


def jpeg(width: int, height: int, megabytes: float) -> bytes:
    """Make a JPEG of the best quality that stays below the size."""
    scene = _scene(width, height)
    lowest, highest = 5, 100
    while highest - lowest > 1:
        middle = (lowest + highest) // 2
        is_small = len(encode(scene, "JPEG", quality=middle)) <= megabytes * 1e6
        lowest, highest = (middle, highest) if is_small else (lowest, middle)
    return encode(scene, "JPEG", quality=lowest)


def png(width: int, megabytes: float) -> bytes:
    """Make a PNG with as many rows as the size allows."""
    rows = int(megabytes * 1e6 / (len(encode(_scene(width, 200), "PNG")) / 200))
    return encode(_scene(width, rows), "PNG")


def _scene(width: int, height: int) -> Image.Image:
    """Blend noise of several grains, like leaves, grass and a sensor. Colours change slowly."""
    light = Image.linear_gradient("L").resize((width, height))
    for grain in (256, 64, 16, 4, 1):
        light = Image.blend(light, _noise(width, height, grain), 0.3 if grain > 1 else 0.1)
    return Image.merge("YCbCr", [light, _noise(width, height, 128), _noise(width, height, 96)]).convert("RGB")


def _noise(width: int, height: int, grain: int) -> Image.Image:
    small = Image.effect_noise((width // grain + 2, height // grain + 2), 60)
    return small.resize((width, height), Image.Resampling.BICUBIC)

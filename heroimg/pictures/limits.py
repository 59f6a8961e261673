"""How large a picture may be."""

from __future__ import annotations

from heroimg.errors import ImageDamaged, TooManyPixels

MAX_PIXELS = 65_000_000


def refuse_size(width: int, height: int) -> None:
    """Check a picture's size before anything is decoded.

    :raises ImageDamaged: the picture has no pixels.
    :raises TooManyPixels: the picture has more than MAX_PIXELS.
    """
    if not width or not height:
        raise ImageDamaged
    if width * height > MAX_PIXELS:
        raise TooManyPixels(
            f"The picture has {width} x {height} = {width * height:,} pixels; the limit is {MAX_PIXELS:,}."
        )

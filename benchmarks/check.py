"""Compare the check of a picture with decoding alone: `python -m benchmarks.check [--rounds 9]`.

The check reads the picture from a file, as it does after an upload. The decoder gets it from memory: Pillow decodes a
JPEG in grey at 1/8 scale, and all pixels of a PNG. The calls take turns, because a shared machine changes its speed.
Times are CPU time of this process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from math import ceil
from statistics import median
from typing import IO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from heroimg.pictures.formats import check_picture
from tests.helpers.pictures import encode, png_of_zeros

from .photographs import photographs, png

# Faster calls are repeated for this long, because the clock is too coarse for one.
_MILLISECONDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    pictures = photographs()
    scene = Image.open(BytesIO(pictures["3 MB JPEG"]))
    pictures |= {
        "3 MB progressive": encode(scene, "JPEG", progressive=True, quality="keep"),
        "5 MB PNG": png(1500, 5.0),
        "PNG of zeros": png_of_zeros(9286, 6999, depth=16, colour=6),  # expands most, to 520 MB
    }
    print(f"medians of {rounds} rounds, in milliseconds of CPU time")
    print("picture                  bytes  decode    read   check   check/decode")
    for name, data in pictures.items():
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(data)
            decode, read, check = measure([decoding(data), partial(read_file, file), partial(check_file, file)], rounds)
        ratio = median(one / other for one, other in zip(check, decode, strict=True))
        times = " ".join(f"{median(column):7.2f}" for column in (decode, read, check))
        print(f"{name:19} {len(data):10,} {times} {ratio:14.2f}", flush=True)


def decoding(data: bytes) -> Callable[[], object]:
    def decode() -> None:
        jpeg = JpegImageFile(BytesIO(data))
        jpeg.draft("L", (jpeg.width // 8, jpeg.height // 8))
        jpeg.load()

    return decode if data.startswith(b"\xff\xd8") else lambda: Image.open(BytesIO(data)).load()


def read_file(file: IO[bytes], size: int = -1) -> bytes:
    file.seek(0)
    return file.read(size)


def check_file(file: IO[bytes]) -> object:
    return check_picture(partial(read_file, file))


def measure(calls: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Return each call's milliseconds in each round."""
    repeats = [ceil(_MILLISECONDS / milliseconds(call, 1)) for call in calls]
    turns = [[milliseconds(call, times) for call, times in zip(calls, repeats, strict=True)] for _ in range(rounds)]
    return [list(column) for column in zip(*turns, strict=True)]


def milliseconds(call: Callable[[], object], times: int) -> float:
    """Return the mean CPU time of a call."""
    begun = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - begun) * 1000 / times


if __name__ == "__main__":
    main()

"""What the check of a picture costs, beside the bare decoder's work on it: `python -m benchmarks.check [--rounds 9]`.

The check is `media_type_of`, which reads the picture from the disk as an upload's does. The bare decoder has it in
memory: of a JPEG that is libjpeg-turbo at 1/8 scale, in grey, by Debian's TurboJPEG; of a PNG zlib's CRC over the file.

Pillow comes with a libjpeg-turbo of its own, mostly newer. So that their difference is not taken for the check's cost,
Pillow alone decodes the same bytes too. Times are this process's on the processor, taken in turns; every ratio is the
median of the rounds' ratios, as a shared processor changes its speed between them.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_ulong, c_void_p
from io import BytesIO
from math import ceil
from statistics import median
from typing import IO

import PIL
from PIL import Image, features
from PIL.JpegImagePlugin import JpegImageFile

from heroimg.gunicorn_conf import settle_allocator
from heroimg.pictures.formats import media_type_of
from tests.helpers.pictures import encode

from .photographs import photographs

SCALE = 8
_LIBRARY, _PACKAGE = "libturbojpeg.so.0", "libturbojpeg0"
_TJPF_GRAY = 6

# What takes less is called several times in a round: too short a time would be the clock's and the caches'.
_MILLISECONDS = 20


class TurboJpeg:
    """Debian's libjpeg-turbo by its TurboJPEG API, as of version 2.1.

    :raises OSError: it is not installed.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_LIBRARY)
        self._library.tjInitDecompress.restype = c_void_p
        self._decoder = c_void_p(self._library.tjInitDecompress())

    def decode(self, data: bytes) -> None:
        width, height, sampling, colours = c_int(), c_int(), c_int(), c_int()
        given = self._decoder, c_char_p(data), c_ulong(len(data))
        self._succeed(
            self._library.tjDecompressHeader3(*given, byref(width), byref(height), byref(sampling), byref(colours))
        )
        across, down = ceil(width.value / SCALE), ceil(height.value / SCALE)
        pixels = ctypes.create_string_buffer(across * down)
        self._succeed(self._library.tjDecompress2(*given, pixels, across, 0, down, _TJPF_GRAY, 0))

    def _succeed(self, status: int) -> None:
        if status:
            self._library.tjGetErrorStr2.restype = c_char_p
            raise ValueError(self._library.tjGetErrorStr2(self._decoder).decode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    try:
        turbo = TurboJpeg()
    except OSError:
        sys.exit(f"{_LIBRARY}, the bare decoder to compare with, is missing here. Get it: apt-get install {_PACKAGE}")
    settle_allocator()  # as in a worker
    print(
        f"libjpeg-turbo {_debian_version()} of Debian; {features.version('libjpeg_turbo')} of Pillow {PIL.__version__}"
    )
    print(f"zlib {zlib.ZLIB_RUNTIME_VERSION}; medians of {rounds} rounds, in milliseconds of processor time")
    print("picture                  bytes    bare  Pillow    read   check   check/bare  /Pillow  /(bare + read)")
    for name, data in pictures().items():
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(data)
            print(f"{name:19} {len(data):10,}", _row(measure(ways(data, file, turbo), rounds)), flush=True)


def pictures() -> dict[str, bytes]:
    """Give the benchmarks' photographs, and one of them as a progressive JPEG, as fine in its quality and colours."""
    found = photographs()
    scene = Image.open(BytesIO(found["3 MB JPEG"]))
    return found | {"3 MB progressive": encode(scene, "JPEG", progressive=True, quality="keep")}


def ways(data: bytes, file: IO[bytes], turbo: TurboJpeg) -> dict[str, Callable[[], object]]:
    """Give what is to be compared, by name. The file has the same bytes."""

    def read(size: int) -> bytes:  # as LimitedPart.read
        file.seek(0)
        return file.read(size)

    found: dict[str, Callable[[], object]] = {"read": lambda: read(-1), "check": lambda: media_type_of(read)}
    if data.startswith(b"\xff\xd8"):
        return found | {"bare": lambda: turbo.decode(data), "pillow": lambda: _decode_with_pillow(data)}
    return found | {"bare": lambda: zlib.crc32(data)}


def _decode_with_pillow(data: bytes) -> None:
    jpeg = JpegImageFile(BytesIO(data))
    jpeg.draft("L", (jpeg.width // SCALE, jpeg.height // SCALE))
    jpeg.load()


def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Take each call's milliseconds in every round."""
    times = {name: ceil(_MILLISECONDS / _milliseconds(call, 1)) for name, call in calls.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(_milliseconds(call, times[name]))
    return found


def _milliseconds(call: Callable[[], object], times: int) -> float:
    """Compute the processor time of one call, of so many."""
    begun = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - begun) * 1000 / times


def _row(found: dict[str, list[float]]) -> str:
    with_reading = [bare + read for bare, read in zip(found["bare"], found["read"], strict=True)]
    names = "bare", "pillow", "read", "check"
    columns = [f"{median(found[name]):7.2f}" if name in found else "      -" for name in names]
    columns.append(f"{_ratio(found['check'], found['bare']):12.2f}")
    columns.append(f"{_ratio(found['check'], found['pillow']):8.2f}" if "pillow" in found else "       -")
    return " ".join([*columns, f"{_ratio(found['check'], with_reading):15.2f}"])


def _ratio(some: list[float], others: list[float]) -> float:
    return median(one / other for one, other in zip(some, others, strict=True))


def _debian_version() -> str:
    """Ask for the package's: TurboJPEG 2.1 does not tell."""
    if not shutil.which("dpkg-query"):
        return "(of unknown version)"
    asked = ["dpkg-query", "--show", "--showformat=${Version}", _PACKAGE]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout or "(of unknown version)"


if __name__ == "__main__":
    main()

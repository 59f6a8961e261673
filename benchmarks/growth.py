"""Check that the number of held pictures does not matter: `python -m benchmarks.growth [--most 1000000]`.

Fills the upload folder step by step with real sidecars and tiny pictures. At each step a customer uploads and retrieves
a photograph of 0.7 MB, and a sweep with nothing to do is timed, start of Python included. Then a worker sweeps 100,000
expired pictures away while the customer goes on. It works in TMPDIR.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles

from tests.helpers.serving import wait_for

from .contenders import heroimg
from .load import FormCustomer, journey
from .photographs import photographs

STEPS = (0, 1_000, 10_000, 100_000, 1_000_000)
JOURNEYS, EXPIRED = 300, 100_000
HOUR = 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=STEPS[-1])
    most = parser.parse_args().most
    picture = photographs()["0.7 MB JPEG"]
    with tempfile.TemporaryDirectory() as name:
        grow(Path(name), picture, [step for step in STEPS if step <= most])
    with tempfile.TemporaryDirectory() as name:
        sweep_away(Path(name), picture)


def grow(folder: Path, picture: bytes, steps: list[int]) -> None:
    held = 0
    with heroimg(folder, HEROIMG_SWEEP_SECONDS="0", HEROIMG_MIN_FREE_BYTES="0") as contender:
        for step in steps:
            fill(folder / "uploads", step - held, int(time.time()) + 24 * HOUR)
            held = step
            with closing(FormCustomer(contender.port, picture)) as customer:
                make_journeys(customer, JOURNEYS // 10)
                times = make_journeys(customer, JOURNEYS)
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-m", "flask", "--app", "heroimg.wsgi", "sweep"], cwd=folder, check=True,
                           env=contender.program.environ, capture_output=True)  # fmt: skip
            report(f"{held:,} held, sweep {time.perf_counter() - begun:.2f} s", times)


def sweep_away(folder: Path, picture: bytes) -> None:
    """Time a worker's sweep of EXPIRED pictures, and a customer's journeys during it."""
    uploads, during = folder / "uploads", list[tuple[float, float]]()
    uploads.mkdir(mode=0o700)
    fill(uploads, EXPIRED, int(time.time()) - 1)
    with heroimg(folder) as contender, closing(FormCustomer(contender.port, picture)) as customer:
        watch = threading.Thread(target=_watch_sweep, args=(uploads,))
        watch.start()
        while watch.is_alive():
            during += make_journeys(customer, 1)
        report("during the sweep", during)
        report("without a sweep", make_journeys(customer, JOURNEYS))


def _watch_sweep(uploads: Path) -> None:
    """Time the sweep by looking at some pictures, because listing all of them would slow it down."""
    some = [path for path, _ in zip(uploads.iterdir(), range(500), strict=False)]
    wait_for(lambda: not all(path.exists() for path in some), "the sweep to begin")
    begun = time.monotonic()
    wait_for(lambda: not any(path.exists() for path in some) and len(os.listdir(uploads)) < 9, "the sweep to end", 300)
    print(f"{EXPIRED:,} expired pictures were removed in {time.monotonic() - begun:.1f} s")


def fill(folder: Path, count: int, expires: int) -> None:
    """Put tiny pictures there, as the store would have kept them."""
    times = {"timestamp": expires - HOUR, "expires": expires}
    sidecar = json.dumps({"mimetype": "image/jpeg", "size": 3, **times}).encode()
    for _ in range(count):
        path = folder / secrets.token_hex(16)
        path.with_suffix(".json").write_bytes(sidecar)
        os.utime(path.with_suffix(".json"), (expires, expires))
        path.write_bytes(b"abc")


def make_journeys(customer: FormCustomer, count: int) -> list[tuple[float, float]]:
    return [journey(customer) for _ in range(count)]


def report(title: str, times: list[tuple[float, float]]) -> None:
    for step, seconds in zip(("upload", "retrieve"), zip(*times, strict=True), strict=True):
        milliseconds = [1000 * value for value in seconds]
        print(f"{title}: {step} median {median(milliseconds):.1f} ms, p99 {quantiles(milliseconds, n=100)[-1]:.1f} ms, "
              f"slowest {max(milliseconds):.0f} ms", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

"""Whether it matters how many pictures are held: `python -m benchmarks.growth [--most 1000000]`.

Serves with the folder filled step by step: real sidecars, pictures of a few bytes. At each step one customer makes
whole journeys with a photograph of 0.7 MB, and a sweep that finds nothing to do is timed. Then 100,000 expired pictures
are put there, and a worker sweeps them away while the customer goes on. It works in TMPDIR.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import tempfile
import threading
import time
from pathlib import Path
from statistics import median, quantiles

from heroimg.config import Config
from heroimg.stores.files.store import FileStore
from tests.helpers.serving import wait_for

from .contenders import heroimg
from .load import FormCustomer, journey
from .photographs import photographs

STEPS = (0, 1_000, 10_000, 100_000, 1_000_000)
JOURNEYS, SWEEPS, EXPIRED = 300, 3, 100_000
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
    uploads, held = folder / "uploads", 0
    print("    held   upload: median, 99 of 100   retrieve: median, 99 of 100   a sweep that finds nothing")
    with heroimg(folder, HEROIMG_SWEEP_SECONDS="0", HEROIMG_MIN_FREE_BYTES="0") as contender:
        for step in steps:
            fill(uploads, step - held, int(time.time()) + 24 * HOUR)
            held, customer = step, FormCustomer(contender.port, picture)
            journeys(customer, JOURNEYS // 10)
            kept, fetched = zip(*journeys(customer, JOURNEYS), strict=True)
            print(
                f"{held:8,} {_spread(kept)}        {_spread(fetched)}       {sweep_seconds(uploads):10.3f} s",
                flush=True,
            )
            customer.close()


def sweep_away(folder: Path, picture: bytes) -> None:
    """Let a worker remove EXPIRED pictures beside a customer."""
    uploads = folder / "uploads"
    uploads.mkdir(mode=0o700)
    fill(uploads, EXPIRED, int(time.time()) - 1)
    with heroimg(folder) as contender:
        customer, found = FormCustomer(contender.port, picture), list[tuple[float, float]]()
        watch = threading.Thread(target=_watch, args=(uploads, seconds := list[float]()))
        watch.start()
        while watch.is_alive():
            found += journeys(customer, 1)
        alone = journeys(customer, JOURNEYS)
        customer.close()
    for name, which in (("beside the sweep", found), ("without", alone)):
        kept, fetched = zip(*which, strict=True)
        print(f"{name:17} upload {_spread(kept)}, slowest {max(kept) * 1000:.0f} ms; "
              f"retrieve {_spread(fetched)}, slowest {max(fetched) * 1000:.0f} ms")  # fmt: skip
    print(f"{EXPIRED:,} expired pictures were removed in {seconds[0]:.1f} s")


def _watch(uploads: Path, seconds: list[float]) -> None:
    """Time the sweep, from the first of some pictures to be gone to the last of all. Listing them would hinder it."""
    some = [path for path, _ in zip(uploads.iterdir(), range(500), strict=False)]
    wait_for(lambda: not all(path.exists() for path in some), "the sweep to begin")
    begun = time.monotonic()
    wait_for(lambda: not any(path.exists() for path in some) and _is_nearly_empty(uploads), "the sweep to end", 300)
    seconds.append(time.monotonic() - begun)


def _is_nearly_empty(uploads: Path) -> bool:
    """A customer's picture may be there."""
    with os.scandir(uploads) as entries:
        return sum(1 for _ in zip(entries, range(9), strict=False)) < 9


def fill(folder: Path, count: int, expires: int) -> None:
    """Put pictures of a few bytes there, as FileStore would have kept them."""
    sidecar = json.dumps(
        {"mimetype": "image/jpeg", "timestamp": expires - HOUR, "size": 3, "expires": expires}
    ).encode()
    for _ in range(count):
        path = folder / secrets.token_hex(16)
        path.with_suffix(".json").write_bytes(sidecar)
        os.utime(path.with_suffix(".json"), (expires, expires))
        path.write_bytes(b"abc")


def journeys(customer: FormCustomer, count: int) -> list[tuple[float, float]]:
    """Make whole journeys; return the seconds of each upload and retrieval."""
    return [journey(customer) for _ in range(count)]


def sweep_seconds(uploads: Path) -> float:
    """Time a sweep that finds nothing to do: the median of several."""
    store, found = FileStore(Config(upload_dir=uploads, min_free_bytes=0), time.time), []
    for _ in range(SWEEPS):
        begun = time.perf_counter()
        assert not any(store.sweep())
        found.append(time.perf_counter() - begun)
    return median(found)


def _spread(seconds: tuple[float, ...]) -> str:
    return f"{median(seconds) * 1000:8.1f} ms, {quantiles(seconds, n=100)[-1] * 1000:5.1f} ms"


if __name__ == "__main__":
    main()

"""Measure the cost of fitting a photograph in Chromium: `python -m benchmarks.browser [--rounds 5]`.

Each round starts a browser of its own. Memory is the peak of all its processes while they fit the photograph, minus
their memory before. `blocked` is the longest time in which the page could not run a timer.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.helpers.browser import chromium
from tests.helpers.process_usage import peak_bytes

from . import contenders
from .photographs import PHONES, jpeg
from .processes import family

MAX_EDGE = 2048

# Width, height and megabytes.
_PHOTOGRAPHS = {"12 megapixels, 4 MB": PHONES, "48 megapixels, 12 MB": (8064, 6048, 12.0)}

_FIT = """async (maxEdge) => {
    const { fitImage } = await import("/static/heroimg.js");
    let [blocked, last] = [0, performance.now()];
    const tick = () => {
        blocked = Math.max(blocked, performance.now() - last);
        last = performance.now();
    };
    const timer = setInterval(tick, 4);
    const start = performance.now();
    const blob = await fitImage(document.querySelector("input").files[0], { maxEdge });
    const milliseconds = performance.now() - start;
    tick();
    clearInterval(timer);
    const reader = new FileReader();
    reader.readAsDataURL(blob);
    await new Promise((resolve) => (reader.onload = resolve));
    return [reader.result.split(",")[1], milliseconds, blocked];
}"""


@dataclass
class Fitted:
    """A fitted photograph, and the time and memory that fitting took."""

    data: bytes
    milliseconds: float
    blocked: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"medians of {rounds} rounds     bytes  fitted       s  blocked ms  peak MB")
    with tempfile.TemporaryDirectory() as folder, contenders.heroimg(Path(folder)) as server:
        for name, size in _PHOTOGRAPHS.items():
            photograph = jpeg(*size)
            turns = [fit(photograph, server.port) for _ in range(rounds)]
            seconds = median(turn.milliseconds for turn in turns) / 1000
            blocked, peak = median(turn.blocked for turn in turns), median(turn.megabytes for turn in turns)
            sizes = f"{len(photograph):10,} {len(turns[0].data):7,}"
            print(f"{name:20} {sizes} {seconds:7.2f} {blocked:11.0f} {peak:8.0f}", flush=True)


def fit(photograph: bytes, port: int, max_edge: int = MAX_EDGE) -> Fitted:
    """Fit a photograph with the module that heroimg serves at this port."""
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        (path := Path(folder) / "photo.jpg").write_bytes(photograph)
        page = browser.new_page()
        page.route(f"{url}/page", lambda route: route.fulfill(body="<!doctype html><input type=file>"))
        page.goto(f"{url}/page")
        page.set_input_files("input", path)
        page.evaluate("import('/static/heroimg.js').then(() => 1)")
        time.sleep(1)  # until the browser has started all its processes
        before = sum(map(_resident_bytes, pids := _browser_pids()))
        for pid in pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # forgets the peak: proc(5)
        data, milliseconds, blocked = page.evaluate(_FIT, max_edge)
        megabytes = (sum(map(peak_bytes, pids)) - before) / 1e6
    return Fitted(b64decode(data), milliseconds, blocked, megabytes)


def _browser_pids() -> list[int]:
    return [pid for pid in family(os.getpid()) if b"chromium" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _resident_bytes(pid: int) -> int:
    resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(resident[1]) * 1024 if resident else 0


if __name__ == "__main__":
    main()

"""What settle_allocator (gunicorn_conf.py) is worth, for pictures of several sizes: `python -m benchmarks.allocator`.

Serves with two workers, in turns as the allocator of glibc comes and as it is settled, to eight customers who upload,
retrieve and confirm. The figures are the kernel's: of all workers, for one such journey.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.serving import Server, wait_for

WAYS = {"as it comes": "settle_allocator = lambda: None\non_starting = lambda server: None\n", "settled": ""}
SIZES = (0.7, 2.0, 3.0, 5.0)
CUSTOMERS, JOURNEYS, ROUNDS = 8, 80, 3
CLAIM = "a-token-of-the-benchmark"


class Cost(NamedTuple):
    """Of one journey; and the most memory that a worker had, in MB."""

    faults: float
    milliseconds: float
    peak: float


def main() -> None:
    print("picture  allocator    page faults  CPU ms  peak MB a worker   (medians of", ROUNDS, "runs)")
    for size in SIZES:
        picture = pictures.jpeg().ljust(int(size * 1024 * 1024), b"\0")
        costs: dict[str, list[Cost]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way in WAYS:
                costs[way].append(measure(way, picture))
        for way, found in costs.items():
            faults, milliseconds, peak = (median(values) for values in zip(*found, strict=True))
            print(f"{size:4} MB  {way:12} {faults:11.0f} {milliseconds:7.1f} {peak:17.0f}")


def measure(way: str, picture: bytes) -> Cost:
    with tempfile.TemporaryDirectory() as name:
        server = Server(Path(name), {"HEROIMG_IMAGE_CHECK": "header"})
        configuration = Path(name) / "configuration.py"
        configuration.write_text(f"from heroimg.gunicorn_conf import *\n{WAYS[way]}")
        gunicorn = (sys.executable, "-m", "gunicorn", "--config", str(configuration), "--bind", "127.0.0.1:0")
        server.start(*gunicorn, "--workers", "2")
        try:
            wait_for(lambda: server.log().count("ready: ") == 2, "both workers")
            serve(server, picture, CUSTOMERS * 2)
            before = _used(server)
            serve(server, picture, JOURNEYS)
            faults, milliseconds = ((a - b) / JOURNEYS for a, b in zip(_used(server), before, strict=True))
            return Cost(faults, milliseconds, max(_peak(pid) for pid in server.workers()))
        finally:
            server.stop()


def serve(server: Server, picture: bytes, journeys: int) -> None:
    def journey(_: int) -> None:
        api = Api(server)
        image_id = api.keep(picture)
        assert api.retrieve(image_id, CLAIM).content == picture
        api.confirm(image_id, CLAIM)

    with ThreadPoolExecutor(CUSTOMERS) as pool:
        list(pool.map(journey, range(journeys)))


def _used(server: Server) -> tuple[float, float]:
    """Add up the workers' minor page faults, and their CPU time in milliseconds: proc(5), fields 10, 14 and 15."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in server.workers()]
    tick = 1000 / os.sysconf("SC_CLK_TCK")
    return sum(int(stat[7]) for stat in stats), sum(int(stat[11]) + int(stat[12]) for stat in stats) * tick


def _peak(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()

"""From `gunicorn` to the first answer, and what an idle worker keeps in memory: `python -m benchmarks.cold_start`.

Starts the shipped gunicorn.conf.py again and again: without a key of Stripe's, with one, and with metrics too. Python's
bytecode is written beforehand, as pip does. The medians are shown. It works in TMPDIR.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from tests.helpers.serving import LONG, ROOT

from .contenders import Contender, heroimg
from .load import FormCustomer
from .photographs import photographs

STARTS, PACKAGES = 5, 20
IMPORT = "import time; begun = time.perf_counter(); import heroimg.wsgi; print(time.perf_counter() - begun)"
KEYS = {"STRIPE_SECRET_KEY": "sk_test_1", "STRIPE_PUBLISHABLE_KEY": "pk_test_1"}
SETTINGS = {
    "without a key of Stripe's": {},
    "with one": KEYS,
    "with one, and metrics": {**KEYS, "HEROIMG_METRICS": "1"},
}
KINDS = ("Rss", "Pss", "Private")


def main() -> None:
    picture = photographs()["0.7 MB JPEG"]
    with tempfile.TemporaryDirectory() as name:
        bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{name}/bytecode"}
        for title, keys in SETTINGS.items():
            settings = bytecode | keys
            (folder := Path(name) / title.replace(" ", "-")).mkdir()
            print(f"{title}:")
            show_starts(folder, picture, settings)
            imports = [float(python(folder, settings, "-c", IMPORT).stdout) for _ in range(STARTS)]
            print(f"    {median(imports):.2f} s to import heroimg.wsgi in a Python of its own\n", flush=True)
        show_packages(folder, settings)


def show_starts(folder: Path, picture: bytes, settings: dict[str, str]) -> None:
    """Print the seconds to the first 200, and a worker's megabytes before and after one journey."""
    with heroimg(folder, **settings) as contender:
        starts = [start(contender, picture) for _ in range(STARTS)]
    print(f"    {median(seconds for seconds, _, _ in starts):.2f} s from `gunicorn` to the first 200")
    print("    a worker's MB         " + "".join(f"{kind:>9}" for kind in KINDS))
    for moment, which in (("idle", 1), ("after one journey", 2)):
        found = [one[which] for one in starts]
        print(f"    {moment:22}" + "".join(f"{median(column):9.1f}" for column in zip(*found, strict=True)))


def start(contender: Contender, picture: bytes) -> tuple[float, list[float], list[float]]:
    """Start it anew; return the seconds to the first 200, and memory() of a worker before and after a journey."""
    contender.program.stop()
    with ThreadPoolExecutor() as beside:
        answered = beside.submit(seconds_to_answer, contender.port)
        contender.program.start()
    workers = contender.pids()[1:]
    idle = max(map(memory, workers), key=lambda found: found[-1])
    with closing(FormCustomer(contender.port, picture)) as customer:
        customer.retrieve(customer.upload())
    served = max(map(memory, workers), key=lambda found: found[-1])  # the connection was one worker's
    return answered.result(), idle, served


def seconds_to_answer(port: int) -> float:
    """Ask for /healthz until it is answered with 200."""
    begun = time.perf_counter()
    while not is_healthy(port):
        if time.perf_counter() - begun > LONG:
            raise AssertionError("waited in vain for an answer")
        time.sleep(0.002)
    return time.perf_counter() - begun


def is_healthy(port: int) -> bool:
    with closing(HTTPConnection("127.0.0.1", port, timeout=LONG)) as connection:
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except OSError:
            return False


def memory(pid: int) -> list[float]:
    """Read a process's megabytes of each of KINDS: with what it shares, with its part of that, without."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    lines = re.findall(r"^(Rss|Pss(?!_)|Private)\w*: +(\d+) kB", rollup, re.MULTILINE)
    return [sum(int(kilobytes) for name, kilobytes in lines if name == kind) * 1024 / 1e6 for kind in KINDS]


def show_packages(folder: Path, settings: dict[str, str]) -> None:
    """Print which packages take the most of the import, their own modules alone, in a Python that notes it down.

    It does not see importlib.import_module: what stripe puts off so is counted for the module that asks for it.
    """
    took, modules = Counter[str](), Counter[str]()
    noted = python(folder, settings, "-X", "importtime", "-c", "import heroimg.wsgi").stderr
    for microseconds, module in re.findall(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", noted, re.MULTILINE):
        took[module.partition(".")[0]] += int(microseconds)
        modules[module.partition(".")[0]] += 1
    print("package                modules       ms")
    for package, microseconds in took.most_common(PACKAGES):
        print(f"{package:22} {modules[package]:7} {microseconds / 1000:8.1f}")
    print(f"{'all':22} {modules.total():7} {took.total() / 1000:8.1f}")


def python(folder: Path, settings: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=True
    )


if __name__ == "__main__":
    main()
